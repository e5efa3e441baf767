#include "formats.h"

#include "kernels.h"

#define ST_AT(name) offsetof(st_kernels, name)

/* Events of int4 weights are smaller, since a multiplier up to 15 folds into each of them. */
const st_format st_formats[ST_FORMATS] = {
    [ST_FLOAT32] = {.name = "float32",
                    .bits = 32,
                    .is_float = 1,
                    .max_event = {32767, 32767, 127},
                    .panel_inputs = 1,
                    .multiply = ST_AT(multiply_float32),
                    .multiply_rows = {ST_AT(rows_float32), ST_AT(rows_float32),
                                      ST_AT(rows_float32)}},
    [ST_BFLOAT16] = {.name = "bfloat16",
                     .bits = 16,
                     .is_float = 1,
                     .max_event = {32767, 32767, 127},
                     .panel_inputs = 1,
                     .multiply = ST_AT(multiply_bfloat16),
                     .multiply_rows = {ST_AT(rows_bfloat16), ST_AT(rows_bfloat16),
                                       ST_AT(rows_bfloat16)}},
    [ST_INT8] = {.name = "int8",
                 .bits = 8,
                 .max_event = {32767, 32767, 127},
                 .panel_inputs = 4,
                 .multiply = ST_AT(multiply_int8),
                 .multiply_rows = {ST_AT(rows_int8), ST_AT(rows_int8), ST_AT(counts_int8)}},
    [ST_INT8_GROUPS] = {.name = "int8-groups",
                        .bits = 8,
                        .max_event = {0, 0, 127},
                        .panel_inputs = 4,
                        .multiply_rows = {0, 0, ST_AT(counts_int8_groups)}},
    [ST_INT4] = {.name = "int4",
                 .bits = 4,
                 .max_event = {0, 4095, 8},
                 .span = ST_SPAN,
                 .panel_scale = 2,
                 .multiply = ST_AT(multiply_int4),
                 .multiply_rows = {0, ST_AT(rows_int4), ST_AT(counts_int4)}},
};
