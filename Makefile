# solar: `make` prints the targets. Needs only make and a shell to start: `make setup` installs the rest.
SHELL    := /bin/sh

# ---- choices: make CC=clang, SAN=1, CUDA=0|1|auto, NATIVE=1, WERROR=0, BUILD=DIR, JOBS=N, V=1 (commands in full)
ifeq ($(origin CC),default)
CC       := gcc
endif
ifeq ($(origin CXX),default)
CXX      := $(if $(findstring clang,$(CC)),$(subst clang,clang++,$(CC)),g++)
endif
IS_CLANG := $(findstring clang,$(CC))
SAN      ?= 0
CUDA     ?= $(if $(filter 1,$(SAN)),0,auto)
NATIVE   ?= 0
WERROR   ?= 1
BUILD    ?= build$(if $(IS_CLANG),-clang)$(if $(filter 1,$(SAN)),-san)
JOBS     ?= $(shell nproc 2>/dev/null || echo 2)
PREFIX   ?= /usr/local
Q        := $(if $(V),,@)
MPICC    ?= mpicc
# Parallel unless -j was given, which is not yet in MAKEFLAGS while this file is read
ifeq ($(MAKELEVEL)$(filter -j%,$(shell tr "\0" " " </proc/$$PPID/cmdline 2>/dev/null)),0)
MAKEFLAGS += -j$(JOBS)
endif

# ---- libraries. Nothing here may fail while the packages are still missing.
PKGS     := yaml-0.1 jansson libxxhash libzstd zlib libcrypto
HDF5     := $(shell pkg-config --exists hdf5-serial 2>/dev/null && echo hdf5-serial || echo hdf5)
# xxHash may choose the vectors by the processor, if the library was built so
XXH_DISPATCH := $(shell printf '\043include <xxh_x86dispatch.h>\nint main(void) { return (int)XXH3_64bits("", 0); }\n' | \
    $(CC) -x c - -lxxhash -o /dev/null >/dev/null 2>&1 && echo -DSOLAR_XXH_DISPATCH)
PKG_C    := $(XXH_DISPATCH) $(shell pkg-config --cflags $(PKGS) $(HDF5) 2>/dev/null)
PKG_CXX  := $(shell pkg-config --cflags sentencepiece 2>/dev/null)
# sentencepiece's own .pc of some releases asks for protobuf's, which is not needed and often not there
SP_LIBS  := $(or $(shell pkg-config --libs sentencepiece 2>/dev/null),-lsentencepiece -lsentencepiece_train)
PKG_LIBS := $(shell pkg-config --libs $(PKGS) $(HDF5) 2>/dev/null) $(SP_LIBS)

# oneDNN is only compared with (tests/bench)
DNNL     := $(shell $(CC) -E -include oneapi/dnnl/dnnl.h -x c /dev/null >/dev/null 2>&1 && echo -ldnnl)

# ---- CUDA: sm_80 (A100) and sm_90a (H100, H200), when the toolkit and sources for it are here
CUDA_ARCH ?= 80 90a
CUSRC    := $(wildcard kernels/cuda/*.cu)
NVCC     ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard $(CUDA_HOME)/bin/nvcc /usr/local/cuda/bin/nvcc))
ifeq ($(filter $(CUDA),0 1 auto),)
$(error CUDA=$(CUDA): expected 0, 1 or auto)
endif
ifeq ($(CUDA),0)
CUDA_NOTE := off (CUDA=0)
else ifeq ($(NVCC),)
ifeq ($(CUDA),1)
$(error CUDA=1, but nvcc is neither on PATH nor in /usr/local/cuda/bin: load the CUDA module, or set NVCC=)
endif
CUDA_NOTE := off (no nvcc found)
else ifeq ($(CUSRC),)
CUDA_NOTE := off (no CUDA sources in kernels/cuda)
else
CUDA_ROOT := $(patsubst %/bin/nvcc,%,$(NVCC))
CUDA_INC := -isystem $(CUDA_ROOT)/include
CUDA_LIB := -L$(CUDA_ROOT)/lib64 -Wl,-rpath,$(CUDA_ROOT)/lib64
# NCCL is used where its header and library are: with the toolkit, in the system, or in NCCL_HOME
ifneq ($(NCCL_HOME),)
CUDA_INC += -isystem $(NCCL_HOME)/include
CUDA_LIB += -L$(NCCL_HOME)/lib -Wl,-rpath,$(NCCL_HOME)/lib
endif
NCCL     := $(shell echo 'int main(void) {return ncclGetVersion((int *)0);}' | $(CC) -include nccl.h $(CUDA_INC) -x c - $(CUDA_LIB) -lnccl -lcudart -o /dev/null 2>/dev/null && echo 1)
CUDA_NOTE := on ($(NVCC), sm_$(subst $() $(), sm_,$(strip $(CUDA_ARCH))), $(if $(NCCL),with,without) NCCL)
CUDA_C   := -DSOLAR_CUDA $(if $(NCCL),-DSOLAR_NCCL) $(CUDA_INC)
CUDA_LIBS := $(CUDA_LIB) -lcublasLt $(if $(NCCL),-lnccl) -lcudart
CUDA_SRC := $(wildcard kernels/cuda/*.c)
CUDA_OBJ := $(CUSRC:%.cu=$(BUILD)/obj/%.cu.o) $(CUDA_SRC:%.c=$(BUILD)/obj/%.o)
comma    := ,
# clang finds unused functions in CUDA's own headers
NVFLAGS  := -std=c++17 -O3 -g -ccbin $(CXX) -Iinclude -DSOLAR_CUDA -Xcompiler -Wall,-Wextra$(if $(IS_CLANG),$(comma)-Wno-unused-function) \
            $(if $(filter 1,$(WERROR)),-Werror all-warnings) \
            $(foreach a,$(CUDA_ARCH),-gencode arch=compute_$(a),code=sm_$(a))
endif

# ---- flags. Only options that keep NaN, infinities and the order of sums as written.
OPT       = -O2
KERNEL_OPT := $(if $(filter 1,$(SAN)),-O1,-O3 -fno-trapping-math)
WARN     := -Wall -Wextra $(if $(filter 1,$(WERROR)),-Werror) $(if $(IS_CLANG),-Wno-unknown-warning-option)
SAFE     := -fno-math-errno $(if $(filter 1,$(NATIVE)),-march=native)
CFLAGS   ?= -g
CXXFLAGS ?= $(CFLAGS)
ifeq ($(SAN),1)
OPT       = -O1
SANFLAGS := -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
endif
ALL_C     = -std=c17 -D_GNU_SOURCE $(WARN) -fopenmp -Iinclude $(PKG_C) $(CUDA_C) $(OPT) $(SAFE) $(SANFLAGS) $(EXTRA_C) $(CFLAGS)
ALL_CXX   = -std=c++17 $(WARN) -Iinclude $(PKG_CXX) $(OPT) $(SAFE) $(SANFLAGS) $(CXXFLAGS)
ALL_LD   := -fopenmp $(SANFLAGS) $(LDFLAGS)
SANOBJ   := $(if $(filter 1,$(SAN)),$(BUILD)/obj/tests/setup/keep_modules.o)
HOST_LIBS := $(PKG_LIBS) -lm -lpthread -lstdc++ $(LDLIBS)
LIBS     := $(CUDA_LIBS) $(HOST_LIBS)
COMPILE   = OMPI_CC=$(CC) MPICH_CC=$(CC) $(MPICC)

# ---- what is built
COMMIT   := $(shell git describe --always --dirty 2>/dev/null)
SRC      := $(wildcard kernels/cpu/*.c kernels/plan/*.c worker/*.c worker/*/*.c orchestrator/*.c orchestrator/*/*.c)
CXXSRC   := $(wildcard worker/*.cpp)
OBJ      := $(SRC:%.c=$(BUILD)/obj/%.o) $(CXXSRC:%.cpp=$(BUILD)/obj/%.o) $(CUDA_OBJ)
LIBOBJ   := $(filter-out %/orchestrator/main.o,$(OBJ))
UNITSRC  := $(wildcard tests/unit/test_*.c)
TESTDIRS := $(filter-out unit setup lint,$(notdir $(patsubst %/,%,$(sort $(dir $(wildcard tests/*/*.c))))))
TESTSRC  := $(foreach d,$(TESTDIRS),$(wildcard tests/$(d)/*.c))
UNIT     := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNITSRC))
TESTBIN  := $(UNIT) $(foreach s,$(TESTSRC),$(BUILD)/tests/$(notdir $(s:.c=)))
DISKSHIM := $(BUILD)/tests/disk_shim.so

# the lab of tests/cluster can only be set up by root
LAB_GROUP := $(if $(filter 0,$(shell id -u)),cluster)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo "Options: SAN=1 (ASan, UBSan)  CC=clang  CUDA=0|1|auto  NATIVE=1  WERROR=0  BUILD=DIR  JOBS=N  V=1"

demo: ## set up, build, then deepen and train a small model on real text (5 minutes)
	@tests/setup/install.sh build demo
	@$(MAKE) --no-print-directory program
	@SOLAR=$(abspath $(BUILD)/solar) jobs/demo.sh

check: ## set up, build, run every test (10 minutes at most)
	@tests/setup/install.sh build check $(LAB_GROUP)
	@$(MAKE) --no-print-directory program testbins
	@tests/run.sh $(BUILD)

check-cluster: ## root: several hosts and a real Slurm on this machine; every way a job can end
	@tests/setup/install.sh build check cluster
	@$(MAKE) --no-print-directory program testbins
	@V=1 FULL=1 tests/run.sh $(BUILD) cluster

build: ## set up and build the program into build/solar
	@tests/setup/install.sh build
	@$(MAKE) --no-print-directory program

setup: ## install what is missing for everything below
	@tests/setup/install.sh build check demo lint clang

check-full: ## as check, with the long forms of all tests (an hour or more)
	@tests/setup/install.sh build check
	@$(MAKE) --no-print-directory program testbins
	@FULL=1 TEST_LIMIT=3000 tests/run.sh $(BUILD)

check-quick: ## unit tests and bad inputs only (what SAN=1 runs in CI)
	@tests/setup/install.sh build check
	@$(MAKE) --no-print-directory program testbins
	@tests/run.sh $(BUILD) unit fuzz fault/bad_input

bench-checkpoint: ## measure saving and loading beside dd, cat and PyTorch (DIR=..., RANKS=N, PYTHON=...)
	@$(MAKE) --no-print-directory program $(BUILD)/tests/bench_checkpoint
	@BUILD="$(BUILD)" tests/bench/checkpoint.sh $(DIR)

check-faults: ## the long forms of the fault tests: every failing call, every power cut
	@tests/setup/install.sh build check
	@$(MAKE) --no-print-directory program testbins
	@FULL=1 tests/run.sh $(BUILD) fault

check-fresh: ## root and debootstrap: check and demo in a bare Debian 12 (FRESH="check demo")
	@tests/setup/fresh.sh $(FRESH)

bench: ## measure the training step, files and up-scaling, beside PyTorch and llm.c where installed
	@tests/setup/install.sh build check
	@$(MAKE) --no-print-directory program $(BUILD)/tests/bench_train $(BUILD)/tests/bench_io
	@bash tests/bench/bench.sh $(BUILD)

check-gpu: ## what wants a GPU, on this machine's, in 8 minutes; skips and says so where there is none
	@$(MAKE) --no-print-directory program testbins
	@tests/gpu/check.sh $(BUILD) || [ $$? -eq 77 ]

bench-gpu: ## the speed on a GPU beside PyTorch's; skips and says so where there is none
	@$(MAKE) --no-print-directory program testbins
	@tests/gpu/bench.sh $(BUILD) || [ $$? -eq 77 ]

gpu-bundle: ## both of these as one file for a machine with a GPU and nothing else
	@$(MAKE) --no-print-directory program testbins
	@tests/gpu/bundle.sh $(BUILD)

lint: ## formatting, clang-tidy, function and file length, forbidden flags and words
	@tests/setup/install.sh build lint
	@tests/lint/lint.sh $(BUILD)

format: ## rewrite the C sources as clang-format 14 writes them
	@tests/setup/install.sh lint
	clang-format-14 -i $$(git ls-files -co --exclude-standard '*.c' '*.h' '*.cpp' '*.cu')

install: ## copy the program, jobs and documents to PREFIX (default /usr/local), below DESTDIR
	@$(MAKE) --no-print-directory program
	@tests/setup/copy.sh "$(BUILD)" "$(DESTDIR)$(PREFIX)"

clean: ## remove build/ and its sisters
	rm -rf build build-clang build-san build-clang-san

program: cuda-note $(BUILD)/solar
testbins: $(TESTBIN) $(DISKSHIM) $(BUILD)/libs
unit: $(UNIT)
	@for t in $(UNIT); do $$t || exit 1; done
cuda-note:
	@echo "CUDA: $(CUDA_NOTE)"

# ---- rules. A change of flags or of the list of objects rebuilds what depends on it.
FLAGSTAMP = $(COMPILE) $(ALL_C) $(KERNEL_OPT) | $(CXX) $(ALL_CXX) | $(NVCC) $(NVFLAGS) | $(ALL_LD) $(LIBS)
define stamp
@mkdir -p $(@D); printf '%s\n' '$(1)' | cmp -s - $@ || printf '%s\n' '$(1)' > $@
endef
$(BUILD)/flags: FORCE
	$(call stamp,$(FLAGSTAMP))
$(BUILD)/objects: FORCE
	$(call stamp,$(LIBOBJ))
$(BUILD)/commit: FORCE
	$(call stamp,$(COMMIT))
# for who links the library beside this file: tests/emulation/emulation.mk
$(BUILD)/libs: FORCE
	$(call stamp,$(HOST_LIBS))
# only main.c knows the commit, so that a new one compiles one file
$(BUILD)/obj/orchestrator/main.o: private EXTRA_C = $(if $(COMMIT),-DSOLAR_COMMIT='"$(COMMIT)"')
$(BUILD)/obj/orchestrator/main.o: $(BUILD)/commit

# -fno-trapping-math: no code here reads floating-point exception flags; NaN and infinities stay exact
$(BUILD)/obj/kernels/cpu/%.o: private OPT = $(KERNEL_OPT)
$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  cc   $<"
	$(Q)$(COMPILE) $(ALL_C) -MMD -MP -c $< -o $@
$(BUILD)/obj/%.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  c++  $<"
	$(Q)$(CXX) $(ALL_CXX) -MMD -MP -c $< -o $@
$(BUILD)/obj/%.cu.o: %.cu $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  nvcc $<"
	$(Q)$(NVCC) $(NVFLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@
$(BUILD)/libsolar.a: $(LIBOBJ) $(BUILD)/objects
	@rm -f $@
	@echo "  ar   $@"
	$(Q)ar rcs $@ $(LIBOBJ)
$(BUILD)/solar: $(BUILD)/obj/orchestrator/main.o $(SANOBJ) $(BUILD)/libsolar.a
	@echo "  link $@"
	$(Q)$(COMPILE) $(ALL_LD) -o $@ $^ $(LIBS)

# One test program per file: tests/DIR/NAME.c becomes BUILD/tests/NAME
define test_rule
$(BUILD)/tests/%: tests/$(1)/%.c $(SANOBJ) $(BUILD)/libsolar.a $(BUILD)/flags
	@mkdir -p $$(@D)
	@echo "  test $$<"
	$(Q)$$(COMPILE) $$(ALL_C) -Iworker -Ikernels -Iorchestrator -MMD -MP $$(ALL_LD) -o $$@ $$< $(SANOBJ) $(BUILD)/libsolar.a $$(LIBS) -lcmocka
endef
$(BUILD)/tests/bench_ops: private LIBS += $(DNNL)
$(foreach d,unit $(TESTDIRS),$(eval $(call test_rule,$(d))))

# A library that tests preload to stand between the program and the disk
$(DISKSHIM): tests/fault/disk/shim.c tests/fault/disk/log.h $(BUILD)/flags
	@mkdir -p $(@D)
	@echo "  test $<"
	$(Q)$(CC) -std=c17 -D_GNU_SOURCE $(WARN) -O1 -fPIC -shared $(CFLAGS) -o $@ $< -ldl -lpthread

# clang-tidy's findings, one log per file so that only what changed is read again; tests/lint/lint.sh judges
# them. err.c defines what analyzer.h wraps.
MPI_C     = $(shell $(MPICC) -showme:compile 2>/dev/null)
TIDY     ?= clang-tidy-14
TIDYLOGS := $(patsubst %.c,$(BUILD)/tidy/%.log,$(SRC) $(UNITSRC) $(TESTSRC))
tidy-list:
	@echo $(TIDYLOGS)
$(BUILD)/tidy/%.log: %.c .clang-tidy tests/lint/analyzer.h $(wildcard include/*.h worker/*.h kernels/*/*.h orchestrator/*.h)
	@mkdir -p $(@D)
	@$(TIDY) --quiet $< -- -std=c17 -D_GNU_SOURCE -fopenmp -Iinclude -Iworker -Ikernels -Iorchestrator \
	    $(PKG_C) $(MPI_C) $(if $(filter worker/err.c,$<),,-include tests/lint/analyzer.h) > $@ 2>&1 || \
	    grep -q 'error:' $@ || { cat $@; echo "$(TIDY) failed on $<" >&2; exit 1; }

-include $(OBJ:.o=.d) $(TESTBIN:=.d)
FORCE:
.PHONY: help demo bench check check-full check-faults bench-checkpoint check-cluster check-gpu bench-gpu gpu-bundle build setup check-quick check-fresh lint format install clean program testbins unit cuda-note tidy-list FORCE
