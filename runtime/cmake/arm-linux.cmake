# ARM Linux from another Linux: Debian's cross compilers, tests run by qemu-user. Included by a toolchain file, which sets
# CMAKE_SYSTEM_PROCESSOR, LQC_TRIPLE (of the compiler) and LQC_QEMU_NAME (the emulator's).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_C_COMPILER ${LQC_TRIPLE}-gcc)
find_program(LQC_QEMU NAMES ${LQC_QEMU_NAME} ${LQC_QEMU_NAME}-static)
if(LQC_QEMU)
  set(CMAKE_CROSSCOMPILING_EMULATOR ${LQC_QEMU})
endif()
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
