# The commit for `halfstep --version`: git's where this is a checkout, the archive's where it is one of `git archive`.
execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} rev-parse --short=12 HEAD OUTPUT_VARIABLE commit
  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE no_checkout)
if(no_checkout)
  file(STRINGS ${PROJECT_SOURCE_DIR}/cmake/commit.txt commit LIMIT_COUNT 1)
endif()
set(HALFSTEP_COMMIT "")
if(commit MATCHES "^[0-9a-f]+$")
  set(HALFSTEP_COMMIT " (${commit})")
endif()
set_source_files_properties(${PROJECT_SOURCE_DIR}/base/version.cpp PROPERTIES COMPILE_DEFINITIONS
  "HALFSTEP_VERSION=\"${PROJECT_VERSION}\";HALFSTEP_COMMIT=\"${HALFSTEP_COMMIT}\"")
