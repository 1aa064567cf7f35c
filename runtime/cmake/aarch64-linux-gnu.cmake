# 64-bit ARM Linux: gcc-aarch64-linux-gnu, qemu-aarch64.
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(LQC_TRIPLE aarch64-linux-gnu)
set(LQC_QEMU_NAME qemu-aarch64)
include(${CMAKE_CURRENT_LIST_DIR}/arm-linux.cmake)
