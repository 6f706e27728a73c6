"""Sticky CUDA errors: after one of them every call in the process fails, until it ends."""

import re

# Status: name in the runtime's API, name in the driver's, message.
STICKY = {
    214: ("ECCUncorrectable", "ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"),
    220: ("NvlinkUncorrectable", "NVLINK_UNCORRECTABLE", "uncorrectable NVLink error detected"),
    226: ("Contained", "CONTAINED", "Invalid access of peer GPU memory over nvlink"),
    700: ("IllegalAddress", "ILLEGAL_ADDRESS", "an illegal memory access was encountered"),
    702: ("LaunchTimeout", "LAUNCH_TIMEOUT", "the launch timed out and was terminated"),
    710: ("Assert", "ASSERT", "device-side assert triggered"),
    714: ("HardwareStackError", "HARDWARE_STACK_ERROR", "hardware stack error"),
    715: ("IllegalInstruction", "ILLEGAL_INSTRUCTION", "an illegal instruction was encountered"),
    716: ("MisalignedAddress", "MISALIGNED_ADDRESS", "misaligned address"),
    717: ("InvalidAddressSpace", "INVALID_ADDRESS_SPACE", "not supported on global/shared address"),
    718: ("InvalidPc", "INVALID_PC", "invalid program counter"),
    719: ("LaunchFailure", "LAUNCH_FAILED", "unspecified launch failure"),
    721: ("TensorMemoryLeak", "TENSOR_MEMORY_LEAK", "tensor memory not completely freed"),
    810: ("MpsClientTerminated", "MPS_CLIENT_TERMINATED", "MPS client has been terminated"),
    911: ("ExternalDevice", "EXTERNAL_DEVICE", "async error has occured in external entity"),
}
TEXT = re.compile(
    "|".join(
        rf"cudaError{runtime}\b|CUDA_ERROR_{driver}\b|{re.escape(message)}"
        for runtime, driver, message in STICKY.values()
    )
)


def is_sticky(error: BaseException | None) -> bool:
    """Return whether an error, or one that led to it, leaves the process without its GPU.

    Errors of CuPy carry a `status`, those of PyTorch an `error_code`; of others the text tells.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        numbers = [getattr(error, name, None) for name in ("status", "error_code")]
        if any(type(one) is int and one in STICKY for one in numbers) or TEXT.search(str(error)):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False
