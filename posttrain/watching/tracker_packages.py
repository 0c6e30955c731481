"""Which packages trackers need, and whether they are here. Loads nothing heavy: a run asks before it loads torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from posttrain.errors import ConfigError

PACKAGES = {
    "azure_ml": (("azureml.core",), "azureml-sdk"),
    "comet_ml": (("comet_ml",), "comet-ml"),
    "dagshub": (("dagshub", "mlflow"), "dagshub mlflow"),
    "flyte": (("flytekit",), "flytekit"),
    "kubeflow": ((), ""),
    "tensorboard": (("tensorboard",), "tensorboard"),
}
"""What a tracker needs: modules to import, and what to install; of the others both are the tracker's name."""


def check_installed(names: Sequence[str], where: str = "run.report_to") -> None:
    """Make sure that each tracker's package is there.

    Raises:
        ConfigError: One is not; it names what to install.
    """
    for name in names:
        modules, package = PACKAGES.get(name, ((name,), name))
        if name == "tensorboard" and _is_there("tensorboardX"):
            continue
        missing = [module for module in modules if not _is_there(module)]
        if missing:
            raise ConfigError(
                f"{name} is named, and {' and '.join(missing)} is not installed here",
                expected="trackers that are installed",
                where=where,
                fix=f"pip install {package}; or leave {name} out",
            )


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False
