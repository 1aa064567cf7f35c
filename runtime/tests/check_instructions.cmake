# Fails where a layer takes more instructions between roi_begin() and roi_end() than it may: a bar on counts, which no
# timing disturbs. LAYER: arguments of larq-clip-bench-layer. UNITS: its 128 binary multiply-accumulates. ALL and VECTOR:
# thousandths of an instruction for each unit that it may take.
execute_process(COMMAND ${NM} ${PROGRAM} OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
foreach(name IN ITEMS begin end)
  if(NOT symbols MATCHES "([0-9a-f]+) [Tt] roi_${name}\n")
    message(FATAL_ERROR "${PROGRAM} has no symbol roi_${name}")
  endif()
  set(${name} 0x${CMAKE_MATCH_1})
endforeach()
separate_arguments(LAYER)
execute_process(
  COMMAND ${QEMU} -d plugin -plugin ${PLUGIN},begin=${begin},end=${end} ${PROGRAM} ${LAYER}
  OUTPUT_VARIABLE output ERROR_VARIABLE counts RESULT_VARIABLE result)
if(NOT result EQUAL 0 OR NOT "${output}${counts}" MATCHES "instructions ([0-9]+) vector ([0-9]+)")
  message(FATAL_ERROR "no counts (is this qemu built with plugins?): ${output}${counts}")
endif()
set(all ${CMAKE_MATCH_1})
set(vector ${CMAKE_MATCH_2})
math(EXPR per_unit "${all} * 1000 / ${UNITS}")
math(EXPR vector_per_unit "${vector} * 1000 / ${UNITS}")
message("instructions for 1000 units: ${per_unit}, vector ${vector_per_unit}; at most ${ALL} and ${VECTOR}")
if(per_unit GREATER ALL OR vector_per_unit GREATER VECTOR)
  message(FATAL_ERROR "more than it may take: find the cause, or, where it is wanted, raise the bar with the reason")
endif()
