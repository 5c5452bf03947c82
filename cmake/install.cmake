# What `cmake --install` gives, in four components that are packages of their own too (`cpack -G DEB`):
#   runtime   libhalfstep-runtime and halfstep-run: run compiled steps
#   compiler  libhalfstep-compiler: makes them
#   tools     the executable halfstep
#   dev       headers, and how CMake and pkg-config find the libraries
# Only the two public libraries stand in lib/; those behind them, in lib/halfstep/, may change at any time. The tree can
# be moved.
include(CMakePackageConfigHelpers)

set(private_dir lib/halfstep)
set(runtime_libraries base program runtime data training cpu)
set(compiler_libraries ir frontend passes codegen compiler)

# halfstep_install_private(COMPONENT names...)
function(halfstep_install_private component)
  foreach(name IN LISTS ARGN)
    if(TARGET halfstep_${name})
      set_target_properties(halfstep_${name} PROPERTIES INSTALL_RPATH "$ORIGIN")
      install(TARGETS halfstep_${name} LIBRARY DESTINATION ${private_dir} COMPONENT ${component})
    endif()
  endforeach()
endfunction()
halfstep_install_private(runtime ${runtime_libraries})
halfstep_install_private(compiler ${compiler_libraries})
halfstep_install_private(cuda cuda)

foreach(name runtime compiler)
  set_target_properties(halfstep_api_${name} PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/halfstep")
  install(TARGETS halfstep_api_${name} LIBRARY DESTINATION lib COMPONENT ${name}
    NAMELINK_COMPONENT dev)
endforeach()
set_target_properties(halfstep_cli halfstep_run PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/halfstep")
install(TARGETS halfstep_run RUNTIME DESTINATION bin COMPONENT runtime)
install(TARGETS halfstep_cli RUNTIME DESTINATION bin COMPONENT tools)

# What shells complete, and the manual pages: written by the executables from their own tables.
# halfstep_texts(TARGET NAME COMPONENT)
function(halfstep_texts target name component)
  set(texts ${CMAKE_BINARY_DIR}/texts)
  set(made)
  foreach(text "${name}|completion bash|share/bash-completion/completions"
          "_${name}|completion zsh|share/zsh/vendor-completions"
          "${name}.fish|completion fish|share/fish/vendor_completions.d" "${name}.1|man|share/man/man1")
    string(REPLACE "|" ";" text "${text}")
    list(GET text 0 file)
    list(GET text 1 arguments)
    list(GET text 2 destination)
    separate_arguments(arguments)
    add_custom_command(OUTPUT ${texts}/${file} COMMAND ${CMAKE_COMMAND} -E make_directory ${texts}
      COMMAND $<TARGET_FILE:${target}> ${arguments} > ${texts}/${file} DEPENDS ${target} VERBATIM)
    install(FILES ${texts}/${file} DESTINATION ${destination} COMPONENT ${component})
    list(APPEND made ${texts}/${file})
  endforeach()
  add_custom_target(${target}_texts ALL DEPENDS ${made})
endfunction()
halfstep_texts(halfstep_cli halfstep tools)
halfstep_texts(halfstep_run halfstep-run runtime)

install(FILES include/halfstep/halfstep.h include/halfstep/halfstep.hpp DESTINATION include/halfstep COMPONENT dev)
set(package_dir lib/cmake/halfstep)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/halfstepConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/halfstepConfig.cmake ${CMAKE_BINARY_DIR}/halfstepConfigVersion.cmake DESTINATION ${package_dir}
  COMPONENT dev)
foreach(name runtime compiler)
  configure_file(cmake/halfstep-${name}.pc.in ${CMAKE_BINARY_DIR}/halfstep-${name}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/halfstep-${name}.pc DESTINATION lib/pkgconfig COMPONENT dev)
endforeach()
set(packages runtime compiler tools dev)
if(TARGET halfstep_cuda)
  list(APPEND packages cuda)
endif()
foreach(package IN LISTS packages)
  set(folder halfstep-${package}) # a folder of its own: two packages may not have one file
  install(FILES LICENSE NOTICE DESTINATION share/doc/${folder} COMPONENT ${package})
endforeach()

# Removes what the last `cmake --install` of this build wrote.
file(WRITE ${CMAKE_BINARY_DIR}/uninstall.cmake [[
file(GLOB manifests ${CMAKE_CURRENT_LIST_DIR}/install_manifest*.txt)
if(NOT manifests)
  message(FATAL_ERROR "nothing is installed from here: there is no install_manifest.txt")
endif()
foreach(manifest IN LISTS manifests)
  file(STRINGS ${manifest} installed)
  foreach(file IN LISTS installed)
    if(EXISTS "$ENV{DESTDIR}${file}" OR IS_SYMLINK "$ENV{DESTDIR}${file}")
      message(STATUS "removing $ENV{DESTDIR}${file}")
      file(REMOVE "$ENV{DESTDIR}${file}")
    endif()
  endforeach()
endforeach()
]])
add_custom_target(uninstall COMMAND ${CMAKE_COMMAND} -P ${CMAKE_BINARY_DIR}/uninstall.cmake VERBATIM)

set(CPACK_PACKAGE_NAME halfstep)
set(CPACK_PACKAGE_VENDOR "the Halfstep authors")
set(CPACK_PACKAGE_CONTACT "the Halfstep authors <halfstep@localhost>")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_GENERATOR DEB)
set(CPACK_COMPONENTS_ALL ${packages})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_LIBRARY_OUTPUT_DIRECTORY})
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_COMPONENT_RUNTIME_DESCRIPTION "Trains, evaluates and predicts with compiled Halfstep steps")
set(CPACK_COMPONENT_COMPILER_DESCRIPTION "Compiles ONNX models for training in mixed precision, as a library")
set(CPACK_COMPONENT_TOOLS_DESCRIPTION "Compiles ONNX models for training in mixed precision, and trains them")
set(CPACK_COMPONENT_DEV_DESCRIPTION "Headers for programs that use Halfstep")
set(CPACK_COMPONENT_CUDA_DESCRIPTION "Runs compiled Halfstep steps on NVIDIA GPUs; CUDA 13 and cuDNN 9 are the machine's")
set(CPACK_DEBIAN_RUNTIME_PACKAGE_RECOMMENDS libssl3) # for --trust
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SUGGESTS libhdf5-103-1) # for HDF5 files
set(CPACK_DEBIAN_COMPILER_PACKAGE_DEPENDS "halfstep-runtime (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS "halfstep-compiler (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS
  "halfstep-runtime (= ${PROJECT_VERSION}), halfstep-compiler (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_CUDA_PACKAGE_DEPENDS "halfstep-runtime (= ${PROJECT_VERSION})")
set(CPACK_DEBIAN_CUDA_PACKAGE_SHLIBDEPS OFF) # CUDA's own libraries come from no package of Debian's
include(CPack)
