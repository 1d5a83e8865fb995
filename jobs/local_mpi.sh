# shellcheck shell=sh
# Environment for ranks that all run on this host, with Open MPI 4.1 or 5: more ranks than cores, as root in a
# container, without ssh. To be sourced: . jobs/local_mpi.sh
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none
# containers forbid process_vm_readv; ranks that share a core must not spin on it
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_mpi_yield_when_idle=1
command -v ssh >/dev/null || export OMPI_MCA_plm_rsh_agent=/bin/false
unset OMP_NUM_THREADS
