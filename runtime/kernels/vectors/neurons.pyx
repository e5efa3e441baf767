"""Neuron updates and event lists."""

from libc.stdint cimport int16_t, int32_t

from spiketrain.runtime.kernels.isa.dispatch cimport current


def list_float32(const float[::1] output, int32_t[::1] index, float[::1] value):
    """List the non-zero outputs in ascending order and return their number.

    output (N,); index (N,) and value (N,) are filled from the front.
    """
    check_room(output.shape[0], index.shape[0], value.shape[0])
    cdef Py_ssize_t n = output.shape[0], count = 0
    if n:
        with nogil:
            count = current().list_float32(&output[0], n, &index[0], &value[0])
    return count


def list_int16(const int16_t[::1] output, int32_t[::1] index, int16_t[::1] value):
    """List the non-zero outputs in ascending order and return their number.

    output (N,); index (N,) and value (N,) are filled from the front.
    """
    check_room(output.shape[0], index.shape[0], value.shape[0])
    cdef Py_ssize_t n = output.shape[0], count = 0
    if n:
        with nogil:
            count = current().list_int16(&output[0], n, &index[0], &value[0])
    return count


def quantise(const float[::1] x, int16_t[::1] codes):
    """Symmetric codes in [-127, 127], half to even; returns the scale, max |x| / 127.

    x (N,), codes (N,).  A zero vector has scale 0 and zero codes.
    """
    if codes.shape[0] != x.shape[0]:
        raise ValueError(f"codes has {codes.shape[0]} elements, x has {x.shape[0]}")
    cdef Py_ssize_t n = x.shape[0]
    cdef float scale = 0.0
    if n:
        with nogil:
            scale = current().quantise(&x[0], n, &codes[0])
    return scale


def egru_float32(
    const float[::1] x,
    const float[::1] y,
    const float[::1] threshold,
    float zoneout,
    float[::1] cell,
    float[::1] output,
):
    """One step of a layer of H units: gates, cell, event, reset.

    x (3H,) = input product + bias, y (3H,) = recurrent product + bias, blocks z, r, g;
    threshold (H,); cell (H,) is updated in place; output (H,) is the cell where it fires, else 0.
    """
    cdef Py_ssize_t size = cell.shape[0]
    check_layer(size, x.shape[0], y.shape[0], threshold.shape[0], output.shape[0])
    if size:
        with nogil:
            current().egru_float32(
                &x[0], &y[0], &threshold[0], zoneout, size, 0, size, &cell[0], &output[0]
            )


def egru_int16(
    const float[::1] x,
    const float[::1] y,
    const float[::1] threshold,
    float zoneout,
    float[::1] cell,
    int16_t[::1] output,
):
    """As egru_float32, but output (H,) is in steps of 1/32767, half to even.

    Cells are in [-1, 1], so outputs are in 0 .. 32767. The reset uses the exact cell.
    """
    cdef Py_ssize_t size = cell.shape[0]
    check_layer(size, x.shape[0], y.shape[0], threshold.shape[0], output.shape[0])
    if size:
        with nogil:
            current().egru_int16(
                &x[0], &y[0], &threshold[0], zoneout, size, 0, size, &cell[0], &output[0]
            )


cdef void check_room(Py_ssize_t n, Py_ssize_t index, Py_ssize_t value) except *:
    if index < n or value < n:
        raise ValueError(f"index and value must have room for {n}, have {index} and {value}")


cdef void check_layer(
    Py_ssize_t size, Py_ssize_t x, Py_ssize_t y, Py_ssize_t threshold, Py_ssize_t output
) except *:
    if x != 3 * size or y != 3 * size:
        raise ValueError(f"x and y must have {3 * size} elements, have {x} and {y}")
    if threshold != size or output != size:
        raise ValueError(
            f"threshold and output must have {size} elements, have {threshold} and {output}"
        )
