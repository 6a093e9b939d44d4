"""torch's tensors in the processor's memory, which numpy can look at where they lie.

What numpy has no type for (bfloat16), what takes part in a gradient, and what is no plain block of
memory (sparse, quantized, conjugated) is left to torch's own pickling.
"""

from __future__ import annotations

from typing import Any

from memmapping.modules import loaded


def is_tensor(obj: object) -> bool:
    """Whether `obj` is a tensor, of no subclass."""
    torch = loaded("torch")
    return torch is not None and type(obj) is getattr(torch, "Tensor", None)


def array_of(tensor: Any, least: int) -> Any:
    """Return the memory of a tensor of at least `least` bytes as an array; None: it has no such."""
    torch: Any = loaded("torch")
    if (
        tensor.device.type != "cpu"
        or tensor.layout is not torch.strided
        or tensor.nbytes < least
        or tensor.requires_grad
        or tensor.is_quantized
        or tensor.is_conj()
        or tensor.is_neg()
        or any(getattr(tensor, "names", ()))
        or vars(tensor)
    ):
        return None
    try:
        return tensor.numpy()
    except (TypeError, RuntimeError):
        return None


def storage_of(tensor: Any) -> tuple[Any, tuple[int, int]]:
    """Return what owns the memory of a tensor, and the first address and the one after the last."""
    storage = tensor.untyped_storage()
    first = storage.data_ptr()
    return storage, (first, first + storage.nbytes())


def tensor_over(array: Any) -> Any:
    """Return the tensor that lies where `array` does; called by pickles."""
    import torch

    return torch.from_numpy(array)


def open_tensor(*reference: Any) -> Any:
    """Return the tensor over an array that is in shared memory (see `references.open_array`)."""
    from memmapping.references import open_array

    return tensor_over(open_array(*reference))
