# 32-bit ARM Linux: gcc-arm-linux-gnueabihf, qemu-arm.
set(CMAKE_SYSTEM_PROCESSOR armv7)
set(LQC_TRIPLE arm-linux-gnueabihf)
set(LQC_QEMU_NAME qemu-arm)
include(${CMAKE_CURRENT_LIST_DIR}/arm-linux.cmake)
