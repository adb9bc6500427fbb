// `sbx exec -t` from a real terminal: size, resizing, Ctrl-C and its like, and what is left of the terminal afterwards.
#include <gtest/gtest.h>
#include <signal.h>

#include "instance.h"
#include "terminal.h"

namespace sbx::test {
namespace {

std::vector<std::string> on_terminal(const Sandbox& sandbox, const std::vector<std::string>& command) {
  std::vector<std::string> arguments = {"exec", "-it", sandbox.name()};
  arguments.insert(arguments.end(), command.begin(), command.end());
  return command_line(arguments);
}

TEST(ExecTerminal, TheCommandHasATerminalOfOurSizeAndFollowsIt) {
  Sandbox sandbox;
  // Not a handler: bash forgets a SIGWINCH that arrives while its trap for the one before still runs, and Python waits
  // on in read() if one arrives just before it. What is blocked waits for sigwait().
  const std::string program =
      "import os, signal, sys\n"
      "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})\n"
      "def tell(word):\n"
      "  size = os.get_terminal_size()\n"
      "  os.write(1, (word + ' %d %d\\n' % (size.lines, size.columns)).encode())\n"
      "  return size\n"
      "os.write(1, (os.ttyname(0) + '\\n').encode())\n"
      "tell('first')\n"
      "os.write(1, (os.environ['TERM'] + '\\n').encode())\n"
      "while signal.sigwait({signal.SIGWINCH}) and tell('now') != (80, 24): pass\n"
      "sys.stdin.readline()\n"
      "sys.exit(5)\n";
  Terminal terminal(on_terminal(sandbox, {"python3", "-c", program}), 33, 111);
  EXPECT_TRUE(terminal.shows("/dev/pts/")) << terminal.screen();
  EXPECT_TRUE(terminal.shows("first 33 111\r\nxterm")) << terminal.screen();
  terminal.resize(50, 99);
  EXPECT_TRUE(terminal.shows("now 50 99")) << terminal.screen();
  terminal.resize(24, 80);
  EXPECT_TRUE(terminal.shows("now 24 80")) << terminal.screen();
  terminal.type("\r");
  EXPECT_EQ(terminal.finish(), 5);
}

TEST(ExecTerminal, ControlKeysReachTheCommandAndNotUs) {
  Sandbox sandbox;
  {
    Terminal terminal(
        on_terminal(sandbox, {"python3", "-c",
                              // Not a handler: it may run just before the program waits for the next signal.
                              "import os, signal\n"
                              "keys = {signal.SIGINT, signal.SIGQUIT}\n"
                              "signal.pthread_sigmask(signal.SIG_BLOCK, keys)\n"
                              "os.write(1, b'ready\\n')\n"
                              "while signal.sigwait(keys) == signal.SIGINT: os.write(1, b'interrupted\\n')\n"
                              "os.write(1, b'quitted\\n')\n"
                              "os._exit(9)\n"}),
        24, 80);
    const auto before = terminal.attributes();
    EXPECT_NE(before.c_lflag & ECHO, 0U);
    ASSERT_TRUE(terminal.shows("ready")) << terminal.screen();
    EXPECT_EQ(terminal.attributes().c_lflag & (ECHO | ISIG | ICANON), 0U) << "our own terminal is raw meanwhile";
    for (int i = 0; i < 4; ++i) {  // however often: it is the command's to decide
      terminal.type("\x03");
      EXPECT_TRUE(terminal.shows("interrupted")) << terminal.screen();
    }
    terminal.type("\x1c");
    EXPECT_TRUE(terminal.shows("quitted")) << terminal.screen();
    EXPECT_EQ(terminal.finish(), 9);
    EXPECT_EQ(terminal.attributes().c_lflag, before.c_lflag) << "the terminal is as it was";
    EXPECT_EQ(terminal.attributes().c_iflag, before.c_iflag);
  }
  {
    Terminal terminal(on_terminal(sandbox, {"sleep", "1000"}), 24, 80);
    ASSERT_TRUE(eventually([&] { return sandbox.exec({"pgrep", "-x", "sleep"}).status == 0; }));
    terminal.type("\x03");
    EXPECT_EQ(terminal.finish(), 128 + SIGINT);
  }
  {
    Terminal terminal(on_terminal(sandbox, {"cat"}), 24, 80);
    terminal.type("a line\r");
    EXPECT_TRUE(terminal.shows("a line\r\na line")) << terminal.screen();
    terminal.type("\x04");
    EXPECT_EQ(terminal.finish(), 0);
  }
}

TEST(ExecTerminal, AnInteractiveShellHasJobControlAndDiesWithItsTerminal) {
  Sandbox sandbox;
  {
    Terminal terminal(on_terminal(sandbox, {"bash", "-i"}), 24, 80);
    terminal.type("PS1=pro''mpt:\r");
    ASSERT_TRUE(terminal.shows("prompt:")) << terminal.screen();
    // What bash says it has in the foreground is not yet there: a key typed too early is bash's.
    const auto sleeps_in_foreground = [&] {
      return eventually([&] { return sandbox.exec({"bash", "-c", "ps -o stat= -C sleep | grep -q [+]"}).status == 0; });
    };
    terminal.type("sleep 1000\r");
    ASSERT_TRUE(sleeps_in_foreground());
    terminal.type("\x1a");
    EXPECT_TRUE(terminal.shows("Stopped")) << terminal.screen();
    EXPECT_TRUE(terminal.shows("prompt:")) << terminal.screen();
    terminal.type("fg\r");
    EXPECT_TRUE(terminal.shows("sleep 1000")) << terminal.screen();
    ASSERT_TRUE(sleeps_in_foreground());
    terminal.type("\x03");
    EXPECT_TRUE(terminal.shows("prompt:")) << terminal.screen();
    terminal.type("echo af''ter\r");
    EXPECT_TRUE(terminal.shows("after")) << terminal.screen();
  }  // the terminal's window is closed
  EXPECT_TRUE(eventually([&] { return sandbox.exec({"pgrep", "-f", "bash -i"}).status == 1; }));
}

// `sbx run` attaches the agent the same way.
TEST(ExecTerminal, RunAttachesAShellAndReturnsItsStatus) {
  Sandbox sandbox;
  Terminal terminal(command_line({"run", "--name", sandbox.name()}), 30, 90);
  terminal.type("stty -echo; echo size $(stty size); pwd\r");
  EXPECT_TRUE(terminal.shows("size 30 90")) << terminal.screen();
  EXPECT_TRUE(terminal.shows(sandbox.workspace().string())) << terminal.screen();
  terminal.type("exit 6\r");
  EXPECT_EQ(terminal.finish(), 6);
}

}  // namespace
}  // namespace sbx::test
