"""What decides the bits of a probe in a process, to be compared between processes. No torch."""

from __future__ import annotations

from dataclasses import dataclass, fields

from command_line.version import own_version, version_of
from engines.native.build import machine, source_hash
from engines.native.load import load_engine
from training.probe import BITS_VERSION


@dataclass(frozen=True)
class Software:
    """The project, its compiled engine and what it stands on, as one process has them."""

    version: str | None
    bits: int
    engine: str | None  # digest of the compiled engine's sources, None where there is no engine
    machine: str
    torch: str | None
    numpy: str | None
    gpu: str | None = None  # model of the GPU that trains: another one rounds differently

    @property
    def device(self) -> str:
        """What trains: "cuda" or "cpu"."""
        return "cpu" if self.gpu is None else "cuda"

    def difference(self, driver: Software) -> str | None:
        """Return the first thing that is another one than the driver's, in words, or None.

        An engine that the driver lacks does no harm: it chooses what trains. Nor does a GPU that
        this process does not see: without one it cannot train.
        """
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(driver, field.name)
            if ours == theirs or (field.name == "engine" and theirs is None):
                continue
            if field.name == "gpu" and ours is None:
                continue
            if field.name == "engine":
                return "no compiled engine" if ours is None else "an engine of other sources"
            return f"{field.name} {ours} instead of {theirs}"
        return None


def own_software(device: str = "cpu") -> Software:
    """Return what this process has; of a GPU only what it is if ``device`` is "cuda"."""
    return Software(
        version=own_version(),
        bits=BITS_VERSION,
        engine=source_hash() if load_engine() else None,
        machine=machine(),
        torch=version_of("torch"),
        numpy=version_of("numpy"),
        gpu=_gpu() if device == "cuda" else None,
    )


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
