"""Is a value one of many: conditions whose text does not grow with the list, in each database's words.

An `IN (…)` of another length is another statement: SQLAlchemy's text, asyncpg's preparation and PostgreSQL's
plan are made anew for each size of a group. One array is one statement, prepared and planned once.
"""

from collections.abc import Sequence
from typing import Any, Final

import orjson
from sqlalchemy import BigInteger, Boolean, ColumnElement, Dialect, Text, bindparam, types
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.visitors import InternalTraversal
from sqlalchemy.types import TypeEngine


class _Many(types.TypeDecorator[list[Any]]):
    """A list in one parameter: an array on PostgreSQL, JSON on SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, item: type[Text | BigInteger]) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(
            Text() if dialect.name == "sqlite" else postgresql.ARRAY(self.item, dimensions=1)
        )

    def process_bind_param(self, value: list[Any] | None, dialect: Dialect) -> Any:
        return orjson.dumps(value).decode() if dialect.name == "sqlite" else value


_TEXTS: Final = _Many(Text)
_NUMBERS: Final = _Many(BigInteger)


class _Condition(ColumnElement[bool]):
    """Stands in a WHERE as it is: SQLAlchemy would append `= 1` on SQLite, which no index serves."""

    type = Boolean()

    def self_group(self, against: Any = None) -> Any:  # noqa: ARG002 - SQLAlchemy's interface
        return self


class Among(_Condition):
    """`column` is one of the texts."""

    _traverse_internals = [  # noqa: RUF012 - SQLAlchemy's interface
        ("column", InternalTraversal.dp_clauseelement),
        ("texts", InternalTraversal.dp_clauseelement),
    ]
    inherit_cache = True

    def __init__(self, column: ColumnElement[Any], texts: Sequence[str]) -> None:
        self.column = column
        self.texts = bindparam(None, list(texts), type_=_TEXTS, unique=True)

    @classmethod
    def named(cls, column: ColumnElement[Any], name: str) -> "Among":
        """For a statement that is made once: the texts come with each execution, under this name."""
        among = cls(column, ())
        among.texts = bindparam(name, type_=_TEXTS)
        return among


class PairAmong(_Condition):
    """`(text, number)` of the row is one of the pairs."""

    _traverse_internals = [  # noqa: RUF012 - SQLAlchemy's interface
        (name, InternalTraversal.dp_clauseelement) for name in ("text", "number", "texts", "numbers")
    ]
    inherit_cache = True

    def __init__(
        self, text: ColumnElement[Any], number: ColumnElement[Any], pairs: Sequence[tuple[str, int]]
    ) -> None:
        self.text = text
        self.number = number
        self.texts = bindparam(None, [one for one, _ in pairs], type_=_TEXTS, unique=True)
        self.numbers = bindparam(None, [one for _, one in pairs], type_=_NUMBERS, unique=True)

    @classmethod
    def named(cls, text: ColumnElement[Any], number: ColumnElement[Any], name: str) -> "PairAmong":
        """For a statement that is made once: the pairs come with each execution, by `named_pairs`."""
        among = cls(text, number, ())
        among.texts = bindparam(f"{name}_texts", type_=_TEXTS)
        among.numbers = bindparam(f"{name}_numbers", type_=_NUMBERS)
        return among


def named_pairs(name: str, pairs: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The parameters of `PairAmong.named`."""
    return {f"{name}_texts": [one for one, _ in pairs], f"{name}_numbers": [one for _, one in pairs]}


@compiles(Among, "postgresql")
def _among_postgresql(element: Among, compiler: SQLCompiler, **kw: Any) -> str:
    return f"{compiler.process(element.column, **kw)} = ANY ({compiler.process(element.texts, **kw)})"


@compiles(Among, "sqlite")
def _among_sqlite(element: Among, compiler: SQLCompiler, **kw: Any) -> str:
    texts = compiler.process(element.texts, **kw)
    column = compiler.process(element.column, **kw)
    return f"{column} IN (SELECT value FROM json_each({texts}))"  # noqa: S608 - names of parameters


@compiles(PairAmong, "postgresql")
def _pair_postgresql(element: PairAmong, compiler: SQLCompiler, **kw: Any) -> str:
    text, number, texts, numbers = _parts(element, compiler, kw)
    # The first condition is the one that an index serves; the second one is exact.
    pairs = f"SELECT * FROM unnest({texts}, {numbers})"  # noqa: S608 - names of parameters
    return f"({text} = ANY ({texts}) AND ({text}, {number}) IN ({pairs}))"


@compiles(PairAmong, "sqlite")
def _pair_sqlite(element: PairAmong, compiler: SQLCompiler, **kw: Any) -> str:
    text, number, texts, numbers = _parts(element, compiler, kw)
    zipped = f"json_each({texts}) t JOIN json_each({numbers}) n ON n.key = t.key"
    return f"({text}, {number}) IN (SELECT t.value, n.value FROM {zipped})"  # noqa: S608 - the same


def _parts(element: PairAmong, compiler: SQLCompiler, kw: dict[str, Any]) -> tuple[str, str, str, str]:
    text, number = compiler.process(element.text, **kw), compiler.process(element.number, **kw)
    return text, number, compiler.process(element.texts, **kw), compiler.process(element.numbers, **kw)
