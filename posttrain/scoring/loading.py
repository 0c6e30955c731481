"""Rewards loaded from what a recipe says: a name, a file or an importable function."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from posttrain.errors import RewardError
from posttrain.nearest import hint
from posttrain.scoring.score import Reward

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["ENTRY_POINT_GROUP", "FILE_MODULE", "known_rewards", "load_reward", "module_from_file"]

ENTRY_POINT_GROUP = "posttrain.rewards"
#: Modules made from a reward's file are named by this, the file's stem and a hash of its path.
FILE_MODULE = "posttrain_reward_"
_DEFAULT_FUNCTION = "score"
#: Modules made from files, by name, with the digest of what the file said then
_LOADED: dict[str, tuple[str, ModuleType]] = {}


class RewardSource(Protocol):
    """One entry of a recipe's `rewards`: exactly one of name, path and import_ is set."""

    @property
    def name(self) -> str | None: ...

    @property
    def path(self) -> str | None: ...

    @property
    def import_(self) -> str | None: ...

    @property
    def weight(self) -> float: ...

    @property
    def kwargs(self) -> Mapping[str, Any]: ...


def load_reward(source: RewardSource | Callable[..., Any], base_dir: str | Path = ".") -> Reward:
    """Load a reward from a recipe's entry or a Python function.

    Args:
        source: An object with `name` (built in, or an installed entry point of the group `posttrain.rewards`),
            `path` (`./file.py:function`) or `import_` (`package.module:function`), `weight` and `kwargs`; or a
            function; or a Reward, returned as it is. The function's name may be left out when it is `score`.
            `tasks` may name the only tasks of a mixture that the reward applies to, `sources` the only sources.
        base_dir: The recipe's folder, which `path` is relative to.

    Raises:
        RewardError: nothing of that name, a file or module that cannot be loaded, or an unusable signature.
    """
    if isinstance(source, Reward):
        return source
    if not hasattr(source, "import_"):
        return Reward.from_callable(source)
    spec: RewardSource = source  # type: ignore[assignment]
    if sum(part is not None for part in (spec.name, spec.path, spec.import_)) != 1:
        raise RewardError(
            f"name={spec.name!r}, path={spec.path!r}, import={spec.import_!r}",
            expected="exactly one of name, path and import",
            where="rewards",
        )
    if spec.name is not None:
        function, name = _from_entry_point(spec.name), spec.name
    elif spec.path is not None:
        function, name = _from_file(spec.path, Path(base_dir))
    else:
        function, name = _from_import(str(spec.import_))
    routes = (getattr(spec, key, None) for key in ("tasks", "sources"))
    return Reward.from_callable(function, spec.weight, name, spec.kwargs, *routes)


def known_rewards() -> dict[str, EntryPoint]:
    """The built-in and installed rewards by name."""
    return {point.name: point for point in sorted(_entry_points())}


def _entry_points(**of: Any) -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # which workers, who load this file as well, do not ask

    return entry_points(group=ENTRY_POINT_GROUP, **of)


def _from_entry_point(name: str) -> Callable[..., Any]:
    points = {point.value: point for point in _entry_points(name=name)}
    if not points:
        known = sorted(known_rewards())
        raise RewardError(
            f"no reward named {name!r}" + hint(name, known),
            expected="one of " + (", ".join(known) or "(none: posttrain itself is not installed)"),
            where="rewards.name",
            fix="for a function of your own use `path: ./file.py:function` or `import: package.module:function`",
        )
    if len(points) > 1:
        raise RewardError(
            f"{name!r} is installed more than once: {', '.join(sorted(points))}",
            where="rewards.name",
            fix="say which with `import: package.module:function`",
        )
    (point,) = points.values()
    try:
        return point.load()
    except Exception as error:
        raise _cannot_load(point.value, error, "rewards.name") from error


def _from_file(path: str, base_dir: Path) -> tuple[Callable[..., Any], str]:
    where = f"rewards.path {path!r}"
    file_part, function_name = _split(path, where)
    file = (base_dir / Path(file_part).expanduser()).resolve()
    if not file.is_file():
        beside = sorted(p.name for p in file.parent.glob("*.py")) if file.parent.is_dir() else []
        raise RewardError(
            f"no file {file}" + hint(file.name, beside),
            expected="a Python file, relative to the recipe's folder",
            where=where,
        )
    # A name of our own keeps two files called my_reward.py apart; being in sys.modules lets it be pickled.
    module_name = f"{FILE_MODULE}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    if file.suffix != ".py":
        raise RewardError(f"{file} is not a Python file", expected="a file ending in .py", where=where)
    try:
        module = _once(module_name, file)
    except (Exception, SystemExit) as error:
        raise _cannot_load(str(file), error, where) from error
    return _attribute(module, function_name, where), _display_name(file.stem, function_name)


def _once(name: str, file: Path) -> ModuleType:
    """The module of a file, run once however many rewards are in it, and again only when it has changed.

    Rewards of one file share what the file holds (a cache, a table), and what is pickled by its name must be what
    stands under that name.
    """
    source = file.read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    said, module = _LOADED.get(name, ("", None))
    if module is None or said != digest or sys.modules.get(name) is not module:
        module = module_from_file(name, file, source)
        _LOADED[name] = digest, module
    return module


def module_from_file(name: str, file: str | Path, source: bytes | None = None) -> ModuleType:
    """Run a Python file as the module `name`; it may import its neighbours. Raises what the file raises.

    `source` is what the file said when it was read before, should it have changed since.
    """
    _make_room_for_neighbours(Path(file).parent)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(Path(file).parent)
    sys.modules[name] = module
    sys.path.insert(0, folder)
    try:
        if source is None:
            spec.loader.exec_module(module)
        else:
            exec(compile(source, str(file), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(folder)
    return module


def _make_room_for_neighbours(folder: Path) -> None:
    """Forget neighbours of other rewards' files that a file of this folder would get in place of its own.

    Two files in two folders may each have a `helper.py` beside them, and Python keeps one module a name. Functions that
    hold the forgotten one go on with it.
    """
    others = {Path(str(module.__file__)).parent for name, module in _file_modules()} - {folder}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or not file or name.startswith(FILE_MODULE):
            continue
        its = Path(file).parent.parent if Path(file).stem == "__init__" else Path(file).parent
        if its in others and ((folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()):
            for one in [other for other in sys.modules if other == name or other.startswith(f"{name}.")]:
                del sys.modules[one]


def _file_modules() -> list[tuple[str, ModuleType]]:
    return [(name, module) for name, module in list(sys.modules.items()) if name.startswith(FILE_MODULE)]


def _from_import(path: str) -> tuple[Callable[..., Any], str]:
    where = f"rewards.import {path!r}"
    module_name, function_name = _split(path, where)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise _cannot_load(module_name, error, where) from error
    return _attribute(module, function_name, where), _display_name(module_name.split(".")[-1], function_name)


def _split(path: str, where: str) -> tuple[str, str]:
    head, separator, function_name = path.rpartition(":")
    if not separator or not function_name.replace(".", "").isidentifier():
        head, function_name = path, _DEFAULT_FUNCTION
    if not head.strip():
        raise RewardError(f"{path!r}", expected="file.py:function or package.module:function", where=where)
    return head.strip(), function_name


def _attribute(module: ModuleType, name: str, where: str) -> Callable[..., Any]:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if callable(found):
        return found
    functions = sorted(
        key
        for key, value in vars(module).items()
        if callable(value) and not key.startswith("_") and getattr(value, "__module__", "") == module.__name__
    )
    raise RewardError(
        f"no function {name!r}{hint(name, functions)}",
        expected="one of " + (", ".join(functions) or "(the file defines no function)"),
        where=where,
    )


def _display_name(module: str, function: str) -> str:
    return module if function == _DEFAULT_FUNCTION else function


def _cannot_load(what: str, error: BaseException, where: str) -> RewardError:
    fix = None
    if isinstance(error, ModuleNotFoundError):
        fix = f"install {error.name!r} in this environment, or use `path: ./file.py:function`"
    return RewardError(f"loading {what} raised {type(error).__name__}: {error}", where=where, fix=fix)
