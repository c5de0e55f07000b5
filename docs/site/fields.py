"""Signatures of Flax modules for the API reference: their fields, as `mkdocs build` reads the source."""

from griffe import (
    Attribute,
    Class,
    Expr,
    ExprCall,
    ExprKeyword,
    Extension,
    Function,
    Module,
    Parameter,
    ParameterKind,
    Parameters,
)

FIRST = Parameter("self", kind=ParameterKind.positional_or_keyword)
LINEN = {"nn.Module", "flax.linen.Module"}


def is_module(cls: Class) -> bool:
    """Whether a class is a Linen module, by the bases that the source names."""
    return bool(LINEN & {str(base) for base in cls.bases}) or any(
        LINEN & {str(base) for base in parent.bases} for parent in cls.mro()
    )


def is_field(member: object) -> bool:
    """Whether a member is a dataclass field: an annotated attribute of each instance."""
    return (
        isinstance(member, Attribute)
        and member.annotation is not None
        and "instance-attribute" in member.labels
    )


def default(value: str | Expr | None) -> tuple[str | Expr | None, bool]:
    """The default of a field, and whether `dataclasses.field` makes it keyword-only."""
    if not isinstance(value, ExprCall):
        return value, False
    given = [argument for argument in value.arguments if isinstance(argument, ExprKeyword)]
    keywords = {argument.name: argument.value for argument in given}
    if str(value.function) == "dataclasses.field":
        return keywords.get("default"), str(keywords.get("kw_only")) == "True"
    if str(value.function) == "part":  # layers.layer.part: the default is its argument
        return value.arguments[0], False
    return value, False


def parameters(cls: Class) -> Parameters:
    """The fields of a class and its bases, base classes first and keyword-only fields last."""
    found: dict[str, Parameter] = {}
    for parent in [*reversed(cls.mro()), cls]:
        by_keyword = str(parent.keywords.get("kw_only")) == "True" if hasattr(parent, "keywords") else False
        kind = ParameterKind.keyword_only if by_keyword else ParameterKind.positional_or_keyword
        for name, member in parent.members.items():
            if is_field(member):
                value, alone = default(member.value)
                of_field = ParameterKind.keyword_only if alone else kind
                found[name] = Parameter(name, annotation=member.annotation, kind=of_field, default=value)
    by_place = sorted(found.values(), key=lambda parameter: parameter.kind is ParameterKind.keyword_only)
    return Parameters(FIRST, *by_place)


class Fields(Extension):
    """Gives every Linen module of the package the signature that Flax makes from its fields."""

    def on_package(self, *, pkg: Module, **_: object) -> None:
        """Visits all classes once the package is read."""
        self._visit(pkg)

    def _visit(self, module: Module) -> None:
        for member in module.members.values():
            if member.is_alias:
                continue
            if isinstance(member, Module):
                self._visit(member)
            elif isinstance(member, Class) and "__init__" not in member.members and is_module(member):
                member.set_member("__init__", Function("__init__", parameters=parameters(member)))
