// Which sanitizer the program is built with: their runtimes map far more memory than the program uses, and look into
// /proc for leaks when it ends. GCC says it by a macro, clang by a feature.
#pragma once

#ifdef __has_feature
#define SBX_HAS_FEATURE(feature) __has_feature(feature)
#else
#define SBX_HAS_FEATURE(feature) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || SBX_HAS_FEATURE(address_sanitizer)
#define SBX_ADDRESS_SANITIZER 1
#else
#define SBX_ADDRESS_SANITIZER 0
#endif

#if defined(__SANITIZE_THREAD__) || SBX_HAS_FEATURE(thread_sanitizer)
#define SBX_THREAD_SANITIZER 1
#else
#define SBX_THREAD_SANITIZER 0
#endif
