"""Override parameters by KEY=VALUE settings, in the syntax of `dvc exp run -S`.

Hydra parses a setting. References such as ${oc.env:NAME}, and several values at once, are refused.
"""

from typing import Any

from dvc.utils.hydra import to_hydra_overrides
from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from config import paths
from config.params import load_params, parse_params
from runtime.errors import UserError, shortened, unknown_name

HOW = f"expected KEY=VALUE with a key of {paths.PARAMS}, or +KEY=VALUE to add one that it does not have"


def override(settings: list[str]) -> str:
    """Return the text of params.yaml with `settings` applied; raises UserError if one does not fit."""
    load_params()
    values = parse_yaml_for_update(paths.PARAMS.read_text(encoding="utf-8"), str(paths.PARAMS))
    for setting in settings:
        try:
            apply(values, parse(setting))
        except ValueError as error:
            raise UserError(f"--set {shortened(setting)}: {error}") from None
    changed = dumps_yaml(values)
    try:
        parse_params(changed, paths.PARAMS)
    except UserError as error:
        faults = str(error).replace(f"{paths.PARAMS}: ", "")
        raise UserError(f"--set {' '.join(map(shortened, settings))}: {faults}") from None
    return changed


def parse(setting: str) -> Override:
    """Return a setting as Hydra parses it; raises ValueError, with the reason, for one that is not supported here."""
    if "${" in setting:
        raise ValueError("${...} is not replaced here; write the value itself.")
    try:
        [parsed] = to_hydra_overrides([setting])
    except (HydraException, RecursionError) as error:
        reason = str(error).partition("\n")[0].strip() or type(error).__name__
        raise ValueError(
            f"{HOW}. Text with brackets, quotes or commas stands in quotes: KEY='VALUE'. ({shortened(reason)})"
        ) from None
    if parsed.is_sweep_override():
        raise ValueError("one value each: run once for each of several. A list is written [1,2].")
    if parsed.package is not None:
        raise ValueError(f"{HOW}.")
    return parsed


def apply(values: dict[str, Any], setting: Override) -> None:
    """Apply a setting to `values`; raises ValueError if its key does not fit."""
    *sections, last = setting.key_or_group.split(".")
    section: Any = values
    for depth, name in enumerate(sections):
        section = entry(section, name, sections[:depth])
    exists = isinstance(section, dict) and last in section
    adds = setting.is_add() or setting.is_force_add()
    if not exists and not (adds and isinstance(section, dict)):
        entry(section, last, sections)
    value = setting.value()
    if setting.is_delete():
        if value is not None and section[last] != value:
            raise ValueError(f"{setting.key_or_group} is {section[last]!r}, not {value!r}.")
        del section[last]
        return
    if setting.is_add() and exists and not isinstance(section[last], dict):
        raise ValueError(f"{setting.key_or_group} is there already: leave out the +.")
    section[last] = merged(section.get(last), value)


def entry(section: Any, name: str, keys: list[str]) -> Any:
    """Return an entry of a section of params.yaml.

    Args:
        section: the section.
        name: of the entry.
        keys: the keys that lead to the section, for the message.

    Raises:
        ValueError: there is no such entry.
    """
    where = ".".join(keys)
    if isinstance(section, list):
        raise ValueError(f"{where} is a list, which is given whole: {where}=[...].")
    if not isinstance(section, dict):
        raise ValueError(f"{HOW}: {where} is a value and holds no {name!r}.")
    if name not in section:
        raise ValueError(f"{HOW}: {unknown_name('parameter', name, map(str, section), f'{where or paths.PARAMS} has')}")
    return section[name]


def merged(before: Any, value: Any) -> Any:
    """Return `value`; a mapping is merged into the one `before`, as Hydra does."""
    if not (isinstance(before, dict) and isinstance(value, dict)):
        return value
    for name, part in value.items():
        before[name] = merged(before.get(name), part)
    return before
