"""What vLLM calls in each of its processes where posttrain is installed (entry point `vllm.general_plugins`)."""

from __future__ import annotations

SHARED_FILES = "posttrain"
"""The name to give in a server's `--weight-transfer-config`."""

IN_PROCESS = "posttrain_in_process"
"""The name that `posttrain.rollouts.vllm` uses."""

ENGINES = {IN_PROCESS: "InProcessTransfer", SHARED_FILES: "SharedFileTransfer"}


def register() -> None:
    """Make our weight-transfer engines known to vLLM's factory; a second call changes nothing."""
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory

    for name, engine in ENGINES.items():
        if name not in WeightTransferEngineFactory._registry:
            WeightTransferEngineFactory.register_engine(name, "posttrain.rollouts.weight_sync", engine)
