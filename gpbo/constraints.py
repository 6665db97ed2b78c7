"""Constraints on whole configs: functions, or expressions over parameter names that a file can hold.

An expression such as ``"n_heads * 8 <= width"`` may hold arithmetic, comparisons, ``and``, ``or``, ``not``
and ``in``. It is walked, never evaluated by Python, so a study file cannot run code.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from gpbo.errors import SpaceError, did_you_mean

Constraint = Callable[[Mapping[str, Any]], object] | str


_MAX_BITS = 4096  # of a power; more takes long to work out, and in the end all memory


def _power(base: Any, exponent: Any) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and abs(exponent) * base.bit_length() > _MAX_BITS:
        raise OverflowError(f"a power has more than {_MAX_BITS} bits")
    return base**exponent


def _numeric(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The operation for numbers alone: of a text or a list it could make one that fills all memory."""

    def checked(a: Any, b: Any) -> Any:
        if isinstance(a, str | list) or isinstance(b, str | list):
            raise TypeError("only numbers can be multiplied and divided")
        return operation(a, b)

    return checked


class Rule:
    """One constraint, compiled when it is an expression."""

    _OPERATORS: ClassVar[dict[type, Callable[..., Any]]] = {
        ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: _numeric(operator.mul),
        ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: _numeric(operator.mod),
        ast.Pow: _power,
        ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_,
        ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
        ast.Eq: operator.eq, ast.NotEq: operator.ne,
        ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
    }  # fmt: skip

    def __init__(self, constraint: Constraint, parameters: Collection[str]) -> None:
        self._tree: ast.expr | None = None
        if isinstance(constraint, str):
            self.name = repr(constraint)
            self._tree, self._names = self._parse(constraint, parameters)
        elif callable(constraint):
            self.name = getattr(constraint, "__qualname__", repr(constraint))
            self._call = constraint
        else:
            raise SpaceError(f"a constraint must be a function or an expression, got {constraint!r}.")

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Whether the constraint holds for a valid config.

        Raises:
            SpaceError: if it cannot be worked out, for instance because it divides by zero.
        """
        try:
            if self._tree is None:
                return bool(self._call(config))
            if not self._names <= config.keys():
                return True
            return bool(self._value(self._tree, config))
        except Exception as error:
            raise SpaceError(
                f"the constraint {self.name} raised {type(error).__name__}: {error} on {dict(config)!r}; "
                "inactive parameters are absent, so use config.get(name) for them."
            ) from error

    def is_broken_by(self, fixed: Mapping[str, Any]) -> bool:
        """Whether it is an expression that breaks however all other parameters are chosen."""
        return self._tree is not None and self._names <= fixed.keys() and not self.holds(fixed)

    def _parse(self, text: str, parameters: Collection[str]) -> tuple[ast.expr, set[str]]:
        try:
            tree = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            raise SpaceError(f"the constraint {text!r} is not an expression: {error.msg}.") from None
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                if node.id not in parameters:
                    hint = did_you_mean(node.id, parameters)
                    raise SpaceError(f"the constraint {text!r} names {node.id!r}, not a parameter.{hint}")
                names.add(node.id)
            allowed = (
                ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Constant, ast.Name, ast.List, ast.Tuple,
                ast.expr_context, ast.And, ast.Or, *self._OPERATORS,
            )  # fmt: skip
            if not isinstance(node, allowed):
                what = type(node).__name__
                raise SpaceError(f"the constraint {text!r} may hold arithmetic and comparisons, not {what}.")
        self._check_powers(tree, text)
        return tree, names

    def _check_powers(self, tree: ast.expr, text: str) -> None:
        """Refuse constant powers and exponents that are too large, before any config is tried."""
        for node in ast.walk(tree):
            if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Pow):
                continue
            if any(isinstance(below, ast.Name) for below in ast.walk(node.right)):
                continue
            constant = not any(isinstance(below, ast.Name) for below in ast.walk(node.left))
            try:
                exponent = self._value(node.right, {})
                _power(self._value(node.left, {}) if constant else 2, exponent)
            except OverflowError:
                raise SpaceError(
                    f"the constraint {text!r} holds a power of more than {_MAX_BITS} bits; make it smaller."
                ) from None
            except Exception:  # such as a division by zero: it may never be reached
                continue

    def _value(self, node: ast.expr, config: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name):
                return config[name]
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                return [self._value(element, config) for element in elements]
            case ast.UnaryOp(op=op, operand=operand):
                return self._OPERATORS[type(op)](self._value(operand, config))
            case ast.BinOp(left=left, op=op, right=right):
                return self._OPERATORS[type(op)](self._value(left, config), self._value(right, config))
            case ast.BoolOp(op=ast.And(), values=values):
                return all(self._value(value, config) for value in values)
            case ast.BoolOp(op=ast.Or(), values=values):
                return any(self._value(value, config) for value in values)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                terms = [self._value(term, config) for term in (left, *comparators)]
                return all(
                    self._OPERATORS[type(op)](a, b) for op, a, b in zip(ops, terms, terms[1:], strict=False)
                )
        raise AssertionError(ast.dump(node))  # _parse lets nothing else through
