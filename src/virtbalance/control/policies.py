"""Finding a policy: by its name among the installed ones, or as ``path/to/file.py:ClassName``."""

import importlib.metadata
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from virtbalance.model.guest import RoleName


class PolicyError(Exception):
    """The policy can't be had; the message says why, with its file and line where it has one."""


def policy_names(role: RoleName) -> tuple[str, ...]:
    """Return the names of all installed policies of a role."""
    return tuple(sorted({point.name for point in _entry_points(role)}))


def load_policy_class(role: RoleName, reference: str) -> type[Any]:
    """Return the policy class for a name or a ``file.py:ClassName``. Raises ``PolicyError``."""
    file, colon, class_name = reference.rpartition(":")
    if colon and file.endswith(".py"):
        return _checked(_class_in_file(Path(file), class_name), reference)
    for point in _entry_points(role):
        if point.name == reference:
            try:
                return _checked(point.load(), reference)
            except (ImportError, AttributeError) as error:
                raise PolicyError(f"policy {reference!r} cannot be loaded: {error}") from error
    known = ", ".join(policy_names(role))
    raise PolicyError(f"no {role} policy {reference!r}; there are: {known} (or FILE.py:CLASS)")


def make_policy(policy_class: type[Any]) -> Any:
    """Return an instance. Raises ``PolicyError`` if its constructor does anything but succeed."""
    try:
        return policy_class()
    except (Exception, SystemExit) as error:
        raise PolicyError(f"policy {policy_class.__name__}: {describe_failure(error)}") from error


def describe_failure(error: BaseException) -> str:
    """Return one line for an exception of a policy: what, and where in the policy's own file."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: SyntaxError: {error.msg}"
    frame = _frame_to_blame(traceback.extract_tb(error.__traceback__))
    return f"{frame.filename}:{frame.lineno}: {text}" if frame else text


def _frame_to_blame(frames: Sequence[traceback.FrameSummary]) -> traceback.FrameSummary | None:
    """Return the innermost frame of the first file that we called and that is not ours.

    Where there is none it is the innermost of all, or ``None`` if control itself has raised.
    """
    called: list[traceback.FrameSummary] = []
    for frame in frames:
        if Path(frame.filename).parent == _CONTROL:
            called.clear()
        elif not frame.filename.startswith("<frozen "):
            called.append(frame)
    foreign = [frame for frame in called if _CONTROL.parent not in Path(frame.filename).parents]
    own = [frame for frame in foreign if frame.filename == foreign[0].filename]
    return next(reversed(own or called), None)


_CONTROL = Path(__file__).parent


def _entry_points(role: RoleName) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=f"virtbalance.{role}_policies")


def _class_in_file(path: Path, class_name: str) -> type[Any]:
    module = _module_of(path)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        raise PolicyError(f"{path}: no class {class_name}")
    return found


def _module_of(path: Path) -> ModuleType:
    if not path.is_file():
        raise PolicyError(f"{path}: no such file")
    name = f"virtbalance_policy_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PolicyError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in the file look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise PolicyError(describe_failure(error)) from error
    return module


def _checked(policy_class: type[Any], reference: str) -> type[Any]:
    if not callable(getattr(policy_class, "decide", None)):
        raise PolicyError(f"policy {reference!r}: {policy_class.__name__} has no method 'decide'")
    if not isinstance(getattr(policy_class, "name", None), str):
        raise PolicyError(f"policy {reference!r}: {policy_class.__name__} has no 'name'")
    return policy_class
