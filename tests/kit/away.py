"""An engine whose database goes away and comes back when a test says so."""

from stateroom.engines.wrap import Wrapper
from stateroom.errors import OutcomeUnknown, Unavailable


class Away(Wrapper):
    """Refuses every call while `names` has its method; `lost`: commits are carried out, and their answer is lost."""

    def __init__(self, engine):
        super().__init__(engine)
        self.names = ()
        self.lost = False
        self.refused = 0

    def leave(self, *names, lost=False):
        """Be away for these methods, or for all that reach the database."""
        self.lost = lost
        self.names = names or ("read", "scan", "commit", "wait", "read_many", "scan_many")

    def come_back(self):
        self.names = ()

    def _call(self, asked, run, /):
        if asked.name not in self.names:
            return run()
        if self.lost:
            run()
        self.refused += 1
        raise OutcomeUnknown("the answer was lost") if self.lost else Unavailable("away", tried=())

    def _submit(self, part, batch, done, /):
        if "commit" not in self.names:
            super()._submit(part, batch, done)
            return
        self.refused += 1
        if self.lost:
            super()._submit(part, batch, lambda _: done(OutcomeUnknown("the answer was lost")))
        else:
            done(Unavailable("away", tried=()))
