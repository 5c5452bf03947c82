# find_package(halfstep [COMPONENTS runtime compiler]): targets halfstep::runtime, which runs compiled steps, and
# halfstep::compiler, which also makes them. Paths are relative to this file.
get_filename_component(_halfstep_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

set(_halfstep_components ${halfstep_FIND_COMPONENTS})
if(NOT _halfstep_components)
  set(_halfstep_components runtime)
  set(halfstep_FIND_REQUIRED_runtime TRUE)
endif()

foreach(_halfstep_component runtime compiler)
  set(_halfstep_library "${_halfstep_prefix}/lib/libhalfstep-${_halfstep_component}.so")
  if(NOT EXISTS "${_halfstep_library}")
    continue()
  endif()
  set(halfstep_${_halfstep_component}_FOUND TRUE)
  if(NOT TARGET halfstep::${_halfstep_component})
    add_library(halfstep::${_halfstep_component} SHARED IMPORTED)
    set_target_properties(halfstep::${_halfstep_component} PROPERTIES
      IMPORTED_LOCATION "${_halfstep_library}"
      INTERFACE_INCLUDE_DIRECTORIES "${_halfstep_prefix}/include")
  endif()
endforeach()
# A step that the compiler makes is run by the runtime.
if(TARGET halfstep::compiler)
  set_target_properties(halfstep::compiler PROPERTIES INTERFACE_LINK_LIBRARIES halfstep::runtime)
endif()

set(halfstep_FOUND TRUE)
foreach(_halfstep_component IN LISTS _halfstep_components)
  if(halfstep_FIND_REQUIRED_${_halfstep_component} AND NOT halfstep_${_halfstep_component}_FOUND)
    set(halfstep_FOUND FALSE)
    set(halfstep_NOT_FOUND_MESSAGE
      "halfstep has no component '${_halfstep_component}' in ${_halfstep_prefix}; there are runtime and compiler")
  endif()
endforeach()
