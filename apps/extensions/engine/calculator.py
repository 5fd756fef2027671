"""Arithmetic on text from strangers. Nothing is evaluated but numbers.

Hides: the parser. Invariants: only numbers, + - * / // % ** and brackets; exact
integers and 50-digit decimals; text, depth, digits and work are bounded before
each step, so no input costs more than milliseconds.
"""

import ast
import decimal
from collections.abc import Callable
from decimal import Decimal

from apps.common.errors import FieldProblem
from apps.extensions.errors import ToolValidationError

MOST_CHARACTERS = 400
MOST_NODES = 200
MOST_DEPTH = 40
#: Units: decimal digits of any number on the way.
MOST_DIGITS = 1000
MOST_EXPONENT = 10_000
CONTEXT = decimal.Context(
    prec=50,
    Emax=MOST_EXPONENT,
    Emin=-MOST_EXPONENT,
    traps=[decimal.DivisionByZero, decimal.InvalidOperation, decimal.Overflow],
)
_LARGEST = 10**MOST_DIGITS

Number = int | Decimal


def evaluate(expression: str) -> str:
    """Work out an expression, such as "2 * (3 + 4.5)".

    Raises: ToolValidationError saying what is wrong with it.
    """
    if len(expression) > MOST_CHARACTERS:
        raise _wrong("too long", f"at most {MOST_CHARACTERS} characters")
    tree = _parse(expression.strip())
    try:
        return _text(_value(tree.body, 0))
    except decimal.DivisionByZero as error:
        raise _wrong("divides by zero") from error
    except decimal.InvalidOperation as error:
        raise _wrong("has no defined result") from error
    except decimal.Overflow as error:
        raise _wrong("the result is too large") from error


def _parse(expression: str) -> ast.Expression:
    if not expression.isascii():
        raise _wrong("only digits, brackets and + - * / // % ** are understood")
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _wrong("this is not arithmetic") from error
    if sum(1 for _ in ast.walk(tree)) > MOST_NODES:
        raise _wrong("too many terms", f"at most {MOST_NODES} parts")
    return _with_text(tree, expression)


def _with_text(tree: ast.Expression, expression: str) -> ast.Expression:
    """Give decimal numbers their written text back: floats would round them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is float:
            written = ast.get_source_segment(expression, node) or ""
            node.kind = written.replace("_", "")
    return tree


def _value(node: ast.AST, depth: int) -> Number:
    if depth > MOST_DEPTH:
        raise _wrong("too deeply nested", f"at most {MOST_DEPTH} levels")
    if isinstance(node, ast.Constant):
        return _bounded(_number(node))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _value(node.operand, depth + 1)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _value(node.left, depth + 1), _value(node.right, depth + 1)
        return _bounded(_OPERATORS[type(node.op)](left, right))
    raise _wrong("only numbers, brackets and + - * / // % ** are understood")


def _number(node: ast.Constant) -> Number:
    if type(node.value) is int:
        return node.value
    if type(node.value) is float:
        return CONTEXT.create_decimal(str(node.kind))
    raise _wrong("only numbers are understood")


def _bounded(number: Number) -> Number:
    if isinstance(number, int) and abs(number) >= _LARGEST:
        raise _wrong("a number is too large", f"at most {MOST_DIGITS} digits")
    return number


def _decimal(number: Number) -> Decimal:
    return CONTEXT.create_decimal(number)


def _both(
    exact: Callable[[int, int], int], rounded: Callable[[Decimal, Decimal], Decimal]
) -> Callable[[Number, Number], Number]:
    """Stay exact while both sides are integers."""

    def operate(left: Number, right: Number) -> Number:
        if isinstance(left, int) and isinstance(right, int):
            return exact(left, right)
        return rounded(_decimal(left), _decimal(right))

    return operate


def _check_divisor(right: Number) -> None:
    if right == 0:
        raise _wrong("divides by zero")


def _divide(left: Number, right: Number) -> Number:
    _check_divisor(right)
    if isinstance(left, int) and isinstance(right, int) and left % right == 0:
        return left // right
    return CONTEXT.divide(_decimal(left), _decimal(right))


def _floor(left: Number, right: Number) -> Number:
    _check_divisor(right)
    if isinstance(left, int) and isinstance(right, int):
        return left // right
    quotient = CONTEXT.divide(_decimal(left), _decimal(right))
    return quotient.to_integral_value(decimal.ROUND_FLOOR)


def _remainder(left: Number, right: Number) -> Number:
    _check_divisor(right)
    if isinstance(left, int) and isinstance(right, int):
        return left % right
    whole = _decimal(_floor(left, right))
    product = CONTEXT.multiply(whole, _decimal(right))
    return CONTEXT.subtract(_decimal(left), product)


def _power(left: Number, right: Number) -> Number:
    if isinstance(left, int) and isinstance(right, int) and right >= 0:
        if abs(left) > 1 and left.bit_length() * right > 4 * MOST_DIGITS:
            raise _wrong("the power is too large", f"at most {MOST_DIGITS} digits")
        raised: int = left**right
        return raised
    if not -MOST_EXPONENT <= right <= MOST_EXPONENT:
        raise _wrong("the exponent is too large", f"at most {MOST_EXPONENT}")
    if left == 0:
        _check_divisor(left)
    return CONTEXT.power(_decimal(left), _decimal(right))


_OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: _both(lambda a, b: a + b, CONTEXT.add),
    ast.Sub: _both(lambda a, b: a - b, CONTEXT.subtract),
    ast.Mult: _both(lambda a, b: a * b, CONTEXT.multiply),
    ast.Div: _divide,
    ast.FloorDiv: _floor,
    ast.Mod: _remainder,
    ast.Pow: _power,
}


def _text(number: Number) -> str:
    if isinstance(number, int):
        return str(number)
    if number == 0:
        return "0"
    short = number.normalize(CONTEXT)
    plain = -MOST_DIGITS < short.adjusted() < 50
    return f"{short:f}" if plain and short.adjusted() > -50 else str(short)


def _wrong(
    problem: str, expected: str = "arithmetic such as 2 * (3 + 4.5)"
) -> ToolValidationError:
    return ToolValidationError(
        f"I cannot work this out: {problem}.",
        fields=(FieldProblem("$.expression", problem, expected),),
    )
