#include "cli/main.h"

int main(int argc, char** argv) { return sbx::cli::run({argv, argv + argc}); }
