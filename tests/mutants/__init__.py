"""A standing list of one-line defects over all rooms; `make mutants` shows that the tests notice each of them."""

from mutants.above import ABOVE
from mutants.engines import ENGINES
from mutants.families import FAMILIES
from mutants.records import RECORDS
from mutants.watching import WATCHING

MUTANTS = (*ENGINES, *RECORDS, *FAMILIES, *WATCHING, *ABOVE)
