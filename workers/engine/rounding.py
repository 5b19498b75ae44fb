"""What two runtimes may differ by although they compute the same. Imports no torch."""

_OF_ONE = 2 * 2.0**-23  # the last bit of a float32 near 1, from either side
_SHARE = 0.01


def relative(apart: float, largest: float) -> float:
    """A difference as a fraction of the largest value expected; of 1 where that is 0.

    The rounding of 1 is taken off first: ONNX Runtime approximates Sigmoid and its like to so much, however
    small their values are. It is no more than a hundredth of the largest, so small outputs are compared, too.
    """
    beyond = max(apart - min(_OF_ONE, _SHARE * largest), 0.0)  # in this order NaN stays NaN
    return beyond / (largest or 1.0)
