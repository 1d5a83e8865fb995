# solar: `make` prints the targets.
CC       ?= gcc
BUILD    ?= build
MPICC    ?= mpicc
SAN      ?= 0
PKGS     := yaml-0.1 jansson libxxhash sentencepiece libzstd zlib libcrypto
HDF5     := $(shell pkg-config --exists hdf5-serial && echo hdf5-serial || echo hdf5)

CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Werror -Wno-unknown-warning-option
ALL_C    := -std=c17 -D_GNU_SOURCE $(WARN) -fopenmp -Iinclude $(CFLAGS) $(shell pkg-config --cflags $(PKGS) $(HDF5))
LIBS     := $(shell pkg-config --libs $(PKGS) $(HDF5)) -ldnnl -lm -lpthread -lstdc++
ifeq ($(SAN),1)
ALL_C    += -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
LDSAN    := -fsanitize=address,undefined
endif

SRC      := $(wildcard kernels/cpu/*.c worker/*.c orchestrator/*.c)
CXXSRC   := $(wildcard worker/*.cpp)
OBJ      := $(SRC:%.c=$(BUILD)/obj/%.o) $(CXXSRC:%.cpp=$(BUILD)/obj/%.o)
LIBOBJ   := $(filter-out %/orchestrator/main.o,$(OBJ))
UNIT     := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))

help:
	@echo "targets: $(BUILD)/solar  unit"
$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	OMPI_CC=$(CC) $(MPICC) $(ALL_C) -MMD -MP -c $< -o $@
$(BUILD)/obj/%.o: %.cpp
	@mkdir -p $(@D)
	$(CXX) -std=c++17 $(WARN) -Iinclude $(CFLAGS) $(shell pkg-config --cflags sentencepiece) -MMD -MP -c $< -o $@
$(BUILD)/libsolar.a: $(LIBOBJ)
	@rm -f $@
	ar rcs $@ $^
$(BUILD)/solar: $(BUILD)/obj/orchestrator/main.o $(BUILD)/libsolar.a
	OMPI_CC=$(CC) $(MPICC) -fopenmp $(LDSAN) -o $@ $^ $(LIBS)
$(BUILD)/tests/%: tests/unit/%.c $(BUILD)/libsolar.a
	@mkdir -p $(@D)
	OMPI_CC=$(CC) $(MPICC) $(ALL_C) -Iworker -Ikernels -Iorchestrator -MMD -MP $(LDSAN) -o $@ $< $(BUILD)/libsolar.a $(LIBS) -lcmocka
unit: $(UNIT)
	@for t in $(UNIT); do $$t || exit 1; done
-include $(OBJ:.o=.d)
.PHONY: help unit
