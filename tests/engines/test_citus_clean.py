"""Every SQL string of the PostgreSQL engine could run on Citus: the rules, checked on the parse tree.

A key and a statement name the part first, in both tables; one statement touches one part; no trigger, MERGE, sequence,
advisory lock, or anything else that differs between nodes; nothing volatile where a row is updated.
"""

import ast
import re
from pathlib import Path

import pytest

pglast = pytest.importorskip("pglast")
from pglast import ast as tree  # noqa: E402
from pglast.visitors import Visitor  # noqa: E402

import stateroom.engines.postgres as package  # noqa: E402
from stateroom.engines.postgres import function, schema, statements  # noqa: E402

WRITES = ["take", "check", "clear", "remove", "put"]
EVERY = list(statements.every("stateroom"))
TABLES = {"rows", "parts"}
# Immutable, or (the last) a message that is a statement of its own and touches no table.
FUNCTIONS = {
    *("unnest", "length", "lpad", "encode", "get_byte", "int8send", "int2send", "coalesce", "nullif"),
    "pg_notify",
}


class Facts(Visitor):
    """What a statement does, as far as the rules ask."""

    def __init__(self):
        super().__init__()
        self.tables, self.functions, self.forbidden, self.problems = [], set(), [], []

    def visit_RangeVar(self, ancestors, node):
        self.tables.append(node.relname)

    def visit_FuncCall(self, ancestors, node):
        self.functions.add(node.funcname[-1].sval)

    def visit_LockingClause(self, ancestors, node):
        self.forbidden.append("FOR UPDATE")

    def visit_MergeStmt(self, ancestors, node):
        self.forbidden.append("MERGE")

    def visit_CommonTableExpr(self, ancestors, node):
        self.forbidden.append("WITH")

    def visit_SQLValueFunction(self, ancestors, node):
        self.forbidden.append("a function of the session or the time")

    def visit_SelectStmt(self, ancestors, node):
        self.scope(node.fromClause or (), node.whereClause)

    def visit_UpdateStmt(self, ancestors, node):
        self.scope((node.relation, *(node.fromClause or ())), node.whereClause)

    def visit_DeleteStmt(self, ancestors, node):
        self.scope((node.relation, *(node.usingClause or ())), node.whereClause)

    def visit_InsertStmt(self, ancestors, node):
        if node.relation.schemaname != "stateroom":
            self.problems.append(f"{node.relation.relname} without its schema")
        if not inserts_the_part(node):
            self.problems.append("what is inserted may have another part")

    def scope(self, sources, where):
        """Each of our tables listed here has its part compared with $1, by a condition that must hold."""
        tables, conditions = [], list(conjuncts(where))
        for source in sources:
            collect(source, tables, conditions)
        named = {alias for condition in conditions for alias in parts_named(condition)}
        for table in tables:
            alias = table.alias.aliasname if table.alias else table.relname
            if table.relname not in TABLES:
                self.problems.append(f"{table.relname} is not ours")
            if table.schemaname != "stateroom":
                self.problems.append(f"{table.relname} without its schema")
            if alias not in named and not (None in named and len(tables) == 1):
                self.problems.append(f"{table.relname} as {alias}: its part is not $1")


def collect(source, tables, conditions):
    if isinstance(source, tree.RangeVar):
        tables.append(source)
    elif isinstance(source, tree.JoinExpr):
        conditions += conjuncts(source.quals)
        collect(source.larg, tables, conditions)
        collect(source.rarg, tables, conditions)


def conjuncts(node):
    if isinstance(node, tree.BoolExpr) and node.boolop == 0:
        for each in node.args:
            yield from conjuncts(each)
    elif node is not None:
        yield node


def parts_named(node):
    """The tables of ``alias.part = $1``; None where no table is said."""
    if not isinstance(node, tree.A_Expr) or node.kind != 0 or node.name[-1].sval != "=":
        return
    other = node.rexpr.arg if isinstance(node.rexpr, tree.TypeCast) else node.rexpr
    if isinstance(node.lexpr, tree.ColumnRef) and isinstance(other, tree.ParamRef) and other.number == 1:
        names = [field.sval for field in node.lexpr.fields]
        if names[-1] == "part":
            yield names[0] if len(names) > 1 else None


def facts(sql):
    (statement,) = pglast.parse_sql(sql)
    found = Facts()
    found(statement)
    return statement.stmt, found


def part_problems(sql):
    return facts(sql)[1].problems


def inserts_the_part(statement):
    """The first column is the part, and is given the part of a table that is itself restricted to $1."""
    first = statement.selectStmt.targetList[0].val
    names = [field.sval for field in first.fields] if isinstance(first, tree.ColumnRef) else []
    return statement.cols[0].name == "part" and names == ["p", "part"]


@pytest.mark.parametrize("sql", EVERY)
def test_every_statement_names_one_part_in_every_table_it_touches(sql):
    assert part_problems(sql) == []


@pytest.mark.parametrize("sql", EVERY)
def test_nothing_that_differs_between_nodes_is_used(sql):
    _, found = facts(sql)
    assert found.forbidden == []
    assert found.functions <= FUNCTIONS
    assert "pg_notify" not in found.functions or not found.tables


@pytest.mark.parametrize("name", WRITES)
def test_what_is_written_belongs_to_the_writer_that_took_the_part(name):
    sql = statements.render(name, "stateroom")
    assert re.search(r"writer = \$2::bigint", sql), "a write must do nothing after a failed check"


def test_the_tables_have_the_part_first_in_their_keys_and_nothing_a_cluster_refuses():
    made = [text.format(s="stateroom", meta=-1, last=15, format=1, parts=16) for text in schema.CREATE]
    tables = 0
    for sql in made:
        statement = pglast.parse_sql(sql)[0].stmt
        assert isinstance(statement, tree.CreateStmt | tree.AlterTableStmt | tree.InsertStmt), sql
        if isinstance(statement, tree.CreateStmt):
            tables += 1
            keys = [each for each in statement.tableElts if isinstance(each, tree.Constraint)]
            assert [key.keys[0].sval for key in keys] == ["part"], sql
            columns = [each for each in statement.tableElts if isinstance(each, tree.ColumnDef)]
            assert {each.typeName.names[-1].sval for each in columns} <= {"int4", "int8", "bytea"}
    assert tables == 2


def test_one_statement_looks_at_all_parts_and_only_looks():
    statement, found = facts(statements.VERSIONS.format(s="stateroom"))
    assert isinstance(statement, tree.SelectStmt)
    assert (found.tables, found.functions, found.forbidden) == (["parts"], set(), [])


def test_the_function_names_its_part_in_every_statement():
    """Its body is no SQL that the parser of the other tests takes apart: each statement stands on lines of its own."""
    body = function.CREATE.partition("BEGIN")[2]
    parts = re.split(r"(?=\b(?:UPDATE|SELECT|INSERT INTO|DELETE FROM) )", body)
    touching = [each for each in parts if re.match(r"(UPDATE|INSERT INTO|DELETE FROM) \{s\}|SELECT r", each)]
    assert len(touching) == 7
    for each in touching:
        text = each.partition(";")[0]
        assert re.search(r"part = part_", text) or "VALUES (part_," in text, text
    assert not re.search(r"nextval|now\(|random|advisory|current_|FOR UPDATE", body)


def test_the_rules_find_what_breaks_them():
    t = "stateroom"
    assert part_problems(f"DELETE FROM {t}.rows WHERE key = $2::bytea")
    assert part_problems(f"SELECT key FROM {t}.rows AS r, {t}.parts AS p WHERE r.part = $1::int4")
    assert part_problems(
        f"INSERT INTO {t}.rows (part, key) SELECT n.part, n.key FROM unnest($1::int[], $2::bytea[]) AS n (part, key)"
    )
    assert part_problems("DELETE FROM rows WHERE part = $1::int4")
    assert part_problems(f"SELECT key FROM {t}.rows WHERE part = ANY($1::int4[])")
    assert part_problems(f"SELECT key FROM {t}.rows WHERE part = $1::int4 OR key = $2::bytea")
    assert part_problems(f"SELECT key FROM {t}.rows WHERE part = $2::int4")
    assert part_problems(
        f"INSERT INTO {t}.parts (part, version) SELECT 3, p.version FROM {t}.parts AS p WHERE p.part = $1::int4"
    )
    assert facts(f"SELECT now() FROM {t}.rows")[1].functions - FUNCTIONS == {"now"}
    assert facts("SELECT CURRENT_TIMESTAMP")[1].forbidden
    assert facts(f"SELECT key FROM {t}.rows WHERE part = $1::int4 FOR UPDATE SKIP LOCKED")[1].forbidden
    assert facts("SELECT nextval('s'), pg_advisory_lock(1)")[1].functions.isdisjoint(FUNCTIONS)


def test_sql_is_written_in_two_modules_only():
    """A third one escapes these rules. `citus.py` talks to the catalogue of Citus itself; `function.py` has a test of its
    own; `views.py` makes views for people who look by SQL, and no engine reads them."""
    folder = Path(package.__file__).parent
    verbs = re.compile(
        r"\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|TRUNCATE|LOCK|MERGE|WITH|COPY)\s[A-Za-z\"{(*]"
    )
    for path in folder.glob("*.py"):
        if path.name in ("statements.py", "schema.py", "citus.py", "function.py", "views.py"):
            continue
        documented = set()
        module = ast.parse(path.read_text())
        for node in ast.walk(module):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                documented.add(id(node.value))
        for node in ast.walk(module):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and id(node) not in documented:
                text = node.value.decode() if isinstance(node.value, bytes) else node.value
                assert not verbs.match(text), f"{path.name}: {text}"
