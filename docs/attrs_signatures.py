"""A Griffe extension: an attrs class is documented with the signature that attrs gives it."""

from collections.abc import Iterator
from typing import Any

import griffe


class AttrsSignatures(griffe.Extension):
    """Give each attrs class an `__init__` whose parameters are its fields, those of its bases first."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Once the whole package is read."""
        for found in list(_classes(pkg)):
            if _is_attrs(found) and "__init__" not in found.members:
                lineage = [*(base for base in reversed(found.mro()) if _is_attrs(base)), found]
                fields = {field.name: field for of in lineage for field in _fields(of)}
                found.set_member("__init__", _init(found, list(fields.values())))


def _classes(inside: griffe.Module | griffe.Class) -> Iterator[griffe.Class]:
    """All classes that a module, its submodules included, defines."""
    for member in inside.members.values():
        if isinstance(member, griffe.Class):
            yield member
        if isinstance(member, griffe.Module | griffe.Class):
            yield from _classes(member)


def _is_attrs(of: griffe.Class) -> bool:
    return any(decorator.callable_path in ("attrs.define", "attrs.frozen") for decorator in of.decorators)


def _fields(of: griffe.Class) -> Iterator[griffe.Parameter]:
    """The fields of one class, without those of its bases, as parameters."""
    methods = (member for member in of.members.values() if isinstance(member, griffe.Function))
    decorated = {decorator.callable_path for method in methods for decorator in method.decorators}
    for member in of.members.values():
        if not isinstance(member, griffe.Attribute) or "property" in member.labels:
            continue
        options = _options(member.value)
        if options.get("init") == "False":
            continue
        computed = "..." if f"{member.path}.default" in decorated else None  # @field.default
        yield griffe.Parameter(
            member.name.lstrip("_"),
            annotation=member.annotation,
            kind=getattr(
                griffe.ParameterKind,
                "keyword_only" if options.get("kw_only") == "True" else "positional_or_keyword",
            ),
            default=options.get("default", computed),
        )


def _options(value: Any) -> dict[str, Any]:
    """What is given to `attrs.field`; a plain value is the default."""
    if isinstance(value, griffe.ExprCall) and value.canonical_path == "attrs.field":
        given = (one for one in value.arguments if isinstance(one, griffe.ExprKeyword))
        return {one.name: one.value if one.name == "default" else str(one.value) for one in given}
    return {} if value is None else {"default": value}


def _init(of: griffe.Class, fields: list[griffe.Parameter]) -> griffe.Function:
    myself = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    last = griffe.ParameterKind.keyword_only
    fields.sort(key=lambda field: field.kind is last)
    return griffe.Function("__init__", parent=of, parameters=griffe.Parameters(myself, *fields))
