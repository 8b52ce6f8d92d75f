"""The logger of nodes. No secret is ever handed to it: signatures, headers and bodies are not logged."""

import logging

log = logging.getLogger("stateroom")

SILENT = logging.Logger("stateroom.node.http", logging.CRITICAL + 1)
"""For the HTTP library, whose complaints about strangers' requests are none of the user's business."""
