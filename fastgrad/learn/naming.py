"""What values and local derivatives are called in a sentence: by their names, or by how they are computed.

Knows a graph's steps only.
"""

__all__ = ["factor_name", "operand_text", "quantity", "text_of"]

INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "power": "**", "matmul": "@"}


def text_of(step, depth=3):
    """A value by its name, or by how it is computed."""
    if step.name or step.is_source or depth == 0:
        return step.label
    operands = [operand_text(step, j, depth - 1) for j in range(len(step.operands))]
    if step.operation in INFIX and len(operands) == 2:
        operands = [f"({o})" if " " in o and step.operation not in ("add",) else o for o in operands]
        return f"{operands[0]} {INFIX[step.operation]} {operands[1]}"
    if step.operation == "negative":
        return f"-({operands[0]})" if " " in operands[0] else f"-{operands[0]}"
    if step.operation == "transpose":
        return f"({operands[0]}).T" if " " in operands[0] else f"{operands[0]}.T"
    return f"{step.operation}({', '.join(operands)})"


def operand_text(step, j, depth=3):
    operand = step.operands[j]
    return "?" if operand is None else text_of(operand, depth)


def factor_name(step, j):
    """The local derivative of a step by operand j."""
    if step.operation == "multiply" and len(step.operands) == 2:
        return operand_text(step, 1 - j, 2)
    if step.operation == "divide" and j == 0:
        other = operand_text(step, 1, 2)
        return f"1 / ({other})" if " " in other else f"1 / {other}"
    if len(step.operands) == 1:
        return f"{step.operation}'({operand_text(step, 0, 2)})"
    exponent = step.operands[1] if step.operation == "power" and j == 0 else None
    if exponent is not None and exponent.operation == "constant" and exponent.value.ndim == 0:
        n, base = float(exponent.value), operand_text(step, 0, 2)
        base = f"({base})" if " " in base else base
        return f"{n:g} * {base}" if n == 2 else f"{n:g} * {base}**{n - 1:g}"
    if step.operation in ("maximum", "minimum") and len(step.operands) == 2:
        one, other = operand_text(step, j, 2), operand_text(step, 1 - j, 2)
        return f"[{one} {'>' if step.operation == 'maximum' else '<'} {other}]"
    return quantity(text_of(step, 2), operand_text(step, j, 2))


def quantity(a, b):
    """``"dL/dz1"``; with brackets around what has an index, or no name."""
    return f"d{a if a.isidentifier() else f'({a})'}/d{b if b.isidentifier() else f'({b})'}"
