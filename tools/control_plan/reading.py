"""Read a control plan from YAML; every complaint names the line."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic import ValidationError

from ...agent.errors import ConfigError
from ..knowledge.safe_yaml import LOADER, check_yaml
from .schema import ControlPlan, ProductPlan

MAX_BYTES = 1_000_000
MAX_COMPLAINTS = 8


def parse_plan(text: str, name: str = "the control plan") -> ControlPlan:
    """Check a control plan.

    Args:
        text: YAML.
        name: of the file, for messages.

    Raises:
        ConfigError: it is no YAML, or says what a plan cannot say; one clause a complaint, each with its line.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigError(f"{name} is larger than {MAX_BYTES} bytes.")
    try:
        check_yaml(text)
        root = yaml.compose(text, Loader=LOADER)
        twice = _written_twice(root)
        data = yaml.load(text, Loader=LOADER)  # noqa: S506  # LOADER is a safe loader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        reason = " ".join(str(getattr(error, "problem", None) or error).split())[:160]
        raise ConfigError(f"{name}{where}: no valid YAML: {reason}.", hint="Correct the file.") from error
    if twice is not None:
        raise ConfigError(f"{name}, line {twice[0]}: {twice[1]!r} is written twice.")
    if not isinstance(data, dict):
        raise ConfigError(
            f"{name} is no control plan.", hint="At its top stand products, and control_plan for its name."
        )
    try:
        return ControlPlan.model_validate(data)
    except ValidationError as error:
        complaints = [_complaint(root, one) for one in error.errors(include_url=False, include_input=False)]
        shown = sorted(set(complaints))[:MAX_COMPLAINTS]
        more = len(set(complaints)) - len(shown)
        told = "; ".join(f"line {line}: {what}" for line, what in shown) + (f"; and {more} more" if more > 0 else "")
        raise ConfigError(f"{name}: {told}.", hint="Correct the file.") from error


def product_plan(plan: ControlPlan, product: str, name: str = "the control plan") -> ProductPlan:
    """What a plan says of one product.

    Raises:
        ConfigError: it does not speak of it.
    """
    for one in plan.products:
        if one.product == product:
            return one
    raise ConfigError(f"{name} plans nothing for {product!r}; it has {', '.join(p.product for p in plan.products)}.")


def _written_twice(node: Any) -> tuple[int, str] | None:
    """Line and key of the first key that a mapping holds twice: the loader would keep the last and say nothing."""
    if isinstance(node, yaml.SequenceNode):
        return next(filter(None, map(_written_twice, node.value)), None)
    if not isinstance(node, yaml.MappingNode):
        return None
    seen: set[str] = set()
    for key, value in node.value:
        written = str(key.value)
        if written in seen:
            return key.start_mark.line + 1, written
        seen.add(written)
        if (below := _written_twice(value)) is not None:
            return below
    return None


def _complaint(root: Any, error: Any) -> tuple[int, str]:
    """Line and words of one complaint: the deepest node on its path that exists."""
    node, line, path = root, root.start_mark.line + 1, []
    for part in error["loc"]:
        below = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    below, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            below = node.value[part]
            line = below.start_mark.line + 1
        if below is None:
            if error["type"] == "missing":
                path.append(str(part))
            break
        node = below
        path.append(str(part) if not isinstance(part, int) else f"[{part + 1}]")
    what = error["msg"].removeprefix("Value error, ").rstrip(".")
    if error["type"] == "extra_forbidden":
        what = "this key is not known"
    return line, f"{'.'.join(path).replace('.[', '[') or 'the plan'}: {what}"
