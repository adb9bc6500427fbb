# What every target of the project shares: warnings, include root, the helpers sbx_library and sbx_test.

find_package(Threads REQUIRED)
find_package(Boost 1.81 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(GTest REQUIRED)
include(GoogleTest)

add_library(sbx_options INTERFACE)
target_compile_options(sbx_options INTERFACE -Wall -Wextra -Werror)
target_compile_definitions(sbx_options INTERFACE BOOST_ASIO_NO_DEPRECATED _GNU_SOURCE _FILE_OFFSET_BITS=64)
target_include_directories(sbx_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_link_libraries(sbx_options INTERFACE Threads::Threads)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # False positives of GCC 12: Asio's coroutine frames, whose promise type has both operators, and std::string + char*.
  target_compile_options(sbx_options INTERFACE -Wno-mismatched-new-delete -Wno-restrict)
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  # libstdc++ 12 hides std::expected from clang 16, which supports what it needs.
  target_compile_options(sbx_options INTERFACE -D__cpp_concepts=202002L -Wno-macro-redefined -Wno-builtin-macro-redefined)
endif()

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

# sbx_library(NAME SOURCES ... DEPS ...): static library sbx_NAME.
function(sbx_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_library(sbx_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(sbx_${name} PUBLIC sbx_options ${ARG_DEPS})
endfunction()

# sbx_test(NAME [THREADED] SOURCES ... DEPS ...): unit test program; each test is a ctest test with label "unit" or,
# where what it tests has threads, "unit-threaded": what there is for the thread sanitizer to look at.
add_custom_target(unit_tests)
add_custom_target(threaded_tests)
function(sbx_test name)
  cmake_parse_arguments(ARG "THREADED" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES} ${CMAKE_SOURCE_DIR}/src/base/ignore_sigpipe.cpp)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gtest_main GTest::gmock)
  set(label unit)
  add_dependencies(unit_tests ${name})
  if(ARG_THREADED)
    # One label, which -L unit and -L threaded both match: gtest_discover_tests loses all but the first of a list.
    set(label unit-threaded)
    add_dependencies(threaded_tests ${name})
  endif()
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 300 PROPERTIES LABELS ${label} TIMEOUT 900)
endfunction()
