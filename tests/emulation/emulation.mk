# The kernels compiled for the emulated GPU (emulate.cpp), and what is linked with them: their tests, their benchmark and the
# whole program. Sanitizers see the kernels and what they touch; the rest of the program is what the build has.
# usage: make -f tests/emulation/emulation.mk BUILD=build kernels|program        from the repository's root
MAKEFLAGS += --no-builtin-rules -j2
BUILD ?= build
# one name for each file, as what depends on what is kept by name
override BUILD := $(abspath $(BUILD))
HERE  := tests/emulation
TO    := $(BUILD)/emulation
SAN   := -fsanitize=address,undefined -fno-sanitize-recover=undefined
# Packs are read through other types than they were written, as on a GPU.
FLAGS := -O1 -g $(SAN) -fno-strict-aliasing -Wall -Wextra -Werror -I$(HERE)/cuda -Iinclude -Ikernels
CXX   := g++ -std=c++17 $(FLAGS) -Wno-unknown-pragmas -Wno-unused-function -Ikernels/cuda
CC    := gcc -std=c17 -D_GNU_SOURCE $(FLAGS) -fopenmp
GPU   := $(patsubst kernels/cuda/%.cu,$(TO)/%.cu.o,$(wildcard kernels/cuda/*.cu)) \
         $(patsubst kernels/cuda/%.c,$(TO)/%.c.o,$(wildcard kernels/cuda/*.c)) \
         $(patsubst $(HERE)/%.cpp,$(TO)/%.cpp.o,$(wildcard $(HERE)/*.cpp))

.DELETE_ON_ERROR:
kernels: $(TO)/test_cuda $(TO)/test_cuda_attention $(TO)/bench_gpu_ops
program: $(TO)/solar $(TO)/bench_gpu_train $(TO)/libnvidia-ml.so.1
oracle: $(TO)/test_oracle

# The dynamic shared memory of a kernel is an array of emulate.cpp, and the instructions of ptx.cuh are others.
$(TO)/%.cu.o: kernels/cuda/%.cu
	@mkdir -p $(@D)
	sed 's/extern __shared__/extern/' $< >$(@:.o=.cpp)
	$(CXX) -include $(HERE)/cuda/ptx.cuh -MMD -MP -MT $@ -c $(@:.o=.cpp) -o $@
$(TO)/%.c.o: kernels/cuda/%.c
	@mkdir -p $(@D)
	$(CC) -MMD -MP -c $< -o $@
$(TO)/%.cpp.o: $(HERE)/%.cpp
	@mkdir -p $(@D)
	$(CXX) -MMD -MP -c $< -o $@
$(TO)/%.o: tests/unit/%.c
	@mkdir -p $(@D)
	$(CC) -MMD -MP -c $< -o $@
$(TO)/bench_gpu_ops.o: tests/bench/bench_gpu_ops.c
	@mkdir -p $(@D)
	$(CC) -MMD -MP -c $< -o $@
$(TO)/bench_gpu_ops: $(TO)/bench_gpu_ops.o $(GPU) $(BUILD)/libsolar.a
	g++ $(SAN) -fopenmp -o $@ $^ -lm
$(TO)/test_%: $(TO)/test_%.o $(GPU) $(BUILD)/libsolar.a
	g++ $(SAN) -fopenmp -o $@ $^ -lcmocka -lm
# Objects come before the library, so that its own CUDA device and NCCL, or that there are none, are not taken from it.
NCCL := $(TO)/link.o $(TO)/nccl.o
MPI_C := $(shell mpicc -showme:compile)
$(TO)/link.o: worker/link.c
	@mkdir -p $(@D)
	$(CC) -DSOLAR_NCCL $(MPI_C) -MMD -MP -c $< -o $@
$(TO)/nccl.o: $(HERE)/nccl/nccl.cpp
	@mkdir -p $(@D)
	$(CXX) -DOMPI_SKIP_MPICXX $(MPI_C) -MMD -MP -c $< -o $@
$(TO)/solar: $(BUILD)/obj/orchestrator/main.o $(GPU) $(NCCL) $(BUILD)/libsolar.a
	OMPI_CC=gcc MPICH_CC=gcc mpicc $(SAN) -fopenmp -o $@ $^ $$(cat $(BUILD)/libs)
$(TO)/bench_gpu_train.o: tests/bench/bench_gpu_train.c
$(TO)/test_oracle.o: tests/unit/test_oracle.c
$(TO)/bench_gpu_train.o $(TO)/test_oracle.o:
	@mkdir -p $(@D)
	$(CC) $(MPI_C) -Iworker -Iorchestrator -MMD -MP -c $< -o $@
$(TO)/bench_gpu_train $(TO)/test_oracle: $(TO)/%: $(TO)/%.o $(GPU) $(NCCL) $(BUILD)/libsolar.a
	OMPI_CC=gcc MPICH_CC=gcc mpicc $(SAN) -fopenmp -o $@ $^ $$(cat $(BUILD)/libs) -lcmocka
$(TO)/libnvidia-ml.so.1: $(HERE)/nvml/nvml.c
	@mkdir -p $(@D)
	gcc -std=c17 -D_GNU_SOURCE -O1 -g -Wall -Wextra -Werror -fPIC -shared -o $@ $<
-include $(wildcard $(TO)/*.d)
.PHONY: kernels program oracle
