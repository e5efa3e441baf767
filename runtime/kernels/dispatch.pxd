from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint16_t

cdef extern from "kernels.h" nogil:
    enum:
        ST_MAX_LANES

    ctypedef struct st_matrix:
        int format
        const void *weight
        Py_ssize_t stride, rows, cols
        const float *scale
        const float *bias

    ctypedef struct st_kernels:
        const char *name
        void (*exp)(const float *, float *, Py_ssize_t) noexcept nogil
        void (*sigmoid)(const float *, float *, Py_ssize_t) noexcept nogil
        void (*tanh)(const float *, float *, Py_ssize_t) noexcept nogil
        Py_ssize_t (*list_float32)(const float *, Py_ssize_t, int32_t *, float *) noexcept nogil
        Py_ssize_t (*list_int16)(const int16_t *, Py_ssize_t, int32_t *, int16_t *) noexcept nogil
        void (*gather_float32)(const st_matrix *, const int32_t *, const float *, Py_ssize_t,
                               Py_ssize_t, Py_ssize_t, float *) noexcept nogil
        void (*gather_bfloat16)(const st_matrix *, const int32_t *, const float *, Py_ssize_t,
                                Py_ssize_t, Py_ssize_t, float *) noexcept nogil
        void (*gather_int8)(const st_matrix *, const int32_t *, const int16_t *, Py_ssize_t,
                            Py_ssize_t, Py_ssize_t, float *) noexcept nogil
        float (*quantise)(const float *, Py_ssize_t, int16_t *) noexcept nogil
        float (*quantise_row)(const float *, Py_ssize_t, int8_t *, int32_t *) noexcept nogil
        void (*egru_float32)(const float *, const float *, const float *, float, Py_ssize_t,
                             Py_ssize_t, Py_ssize_t, float *, float *) noexcept nogil
        void (*egru_int16)(const float *, const float *, const float *, float, Py_ssize_t,
                           Py_ssize_t, Py_ssize_t, float *, int16_t *) noexcept nogil
        void (*layer_norm)(const float *, const float *, const float *, float, Py_ssize_t,
                           float *) noexcept nogil
        void (*token_shift)(const float *, const float *, const float *, Py_ssize_t,
                            float *) noexcept nogil
        void (*wkv)(const float *, const float *, const float *, const float *, const float *,
                    Py_ssize_t, float *, float *, float *, float *) noexcept nogil
        Py_ssize_t (*lif)(const float *, const float *, const float *, float, Py_ssize_t, float *,
                          int32_t *) noexcept nogil
        void (*gate)(const float *, const float *, Py_ssize_t, float *) noexcept nogil
        void (*square_relu)(const float *, Py_ssize_t, float *) noexcept nogil
        void (*add_counts)(const float *, const int32_t *, Py_ssize_t, float *) noexcept nogil
        void (*add_vector)(const float *, Py_ssize_t, float *) noexcept nogil
        float (*count_spikes)(const float *, float, float, Py_ssize_t, int16_t *) noexcept nogil
        void (*rms_norm)(const float *, const float *, float, Py_ssize_t, float *) noexcept nogil
        void (*rotate)(const float *, const float *, Py_ssize_t, float *) noexcept nogil
        void (*silu_product)(const float *, const float *, Py_ssize_t, float *) noexcept nogil
        void (*decay)(const float *, float, Py_ssize_t, float *) noexcept nogil
        void (*relu)(const float *, Py_ssize_t, float *) noexcept nogil
        float (*spike_values)(const float *, float, float, Py_ssize_t, float *) noexcept nogil
        Py_ssize_t (*spike_list)(const float *, float, float, Py_ssize_t, int32_t, int32_t *,
                                 int16_t *, float *, int64_t *) noexcept nogil
        void (*gla)(const float *, const float *, const float *, const float *, Py_ssize_t,
                    Py_ssize_t, float *, float *) noexcept nogil
        void (*window_tile)(const float *, const float *, const float *, Py_ssize_t, Py_ssize_t,
                            Py_ssize_t, Py_ssize_t, float *, float *, float *) noexcept nogil
        void (*widen_bfloat16)(const uint16_t *, Py_ssize_t, float *) noexcept nogil
        void (*widen_keys)(const int8_t *, const float *, Py_ssize_t, float *) noexcept nogil
        void (*widen_values)(const int8_t *, const float *, Py_ssize_t, float *) noexcept nogil
        int (*softmax)(const float *, Py_ssize_t, float *) noexcept nogil
        double (*nats)(const float *, Py_ssize_t, Py_ssize_t) noexcept nogil

cdef const st_kernels *current() noexcept nogil
