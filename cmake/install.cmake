# What `cmake --install` gives: the executable, the API's libraries and those behind them, headers, and how CMake and
# pkg-config find them. The tree can be moved.
include(CMakePackageConfigHelpers)

install(TARGETS halfstep_cli RUNTIME DESTINATION bin)
install(TARGETS halfstep_api_runtime halfstep_api_compiler LIBRARY DESTINATION lib)
foreach(library base ir frontend passes program codegen runtime data training compiler cpu cuda)
  if(TARGET halfstep_${library})
    install(TARGETS halfstep_${library} LIBRARY DESTINATION lib)
  endif()
endforeach()
install(FILES include/halfstep/halfstep.h include/halfstep/halfstep.hpp DESTINATION include/halfstep)
install(FILES LICENSE NOTICE DESTINATION share/doc/halfstep)

set(package_dir lib/cmake/halfstep)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/halfstepConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/halfstepConfig.cmake ${CMAKE_BINARY_DIR}/halfstepConfigVersion.cmake DESTINATION ${package_dir})

foreach(name runtime compiler)
  configure_file(cmake/halfstep-${name}.pc.in ${CMAKE_BINARY_DIR}/halfstep-${name}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/halfstep-${name}.pc DESTINATION lib/pkgconfig)
endforeach()
