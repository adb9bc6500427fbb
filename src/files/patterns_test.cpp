#include "files/patterns.h"

#include <gtest/gtest.h>

namespace sbx::files {
namespace {

Patterns patterns(const std::vector<std::string>& text) { return *Patterns::parse(text); }

TEST(Patterns, ANameMatchesAtAnyDepthAndAllBeneathIt) {
  const auto p = patterns({".env"});
  EXPECT_TRUE(p.matches(".env"));
  EXPECT_TRUE(p.matches("a/b/.env"));
  EXPECT_TRUE(p.matches(".env/x"));
  EXPECT_TRUE(p.matches(".ENV"));
  EXPECT_FALSE(p.matches(".env.example"));
  EXPECT_FALSE(p.matches(""));
}

TEST(Patterns, ALeadingSlashMeansTheWorkspacesRoot) {
  const auto p = patterns({"/a/*.txt"});
  EXPECT_TRUE(p.matches("a/x.txt"));
  EXPECT_TRUE(p.matches("a/x.txt/y"));
  EXPECT_FALSE(p.matches("b/a/x.txt"));
  EXPECT_FALSE(p.matches("a/b/x.txt"));
}

TEST(Patterns, TwoStarsAreAnyNumberOfFolders) {
  const auto p = patterns({".git/modules/**/hooks", "/only/**", "**/deep"});
  EXPECT_TRUE(p.matches(".git/modules/hooks"));
  EXPECT_TRUE(p.matches("x/.git/modules/a/b/hooks/pre-commit"));
  EXPECT_FALSE(p.matches(".git/modules/a/index"));
  EXPECT_FALSE(p.matches("only"));
  EXPECT_TRUE(p.matches("only/x"));
  EXPECT_TRUE(p.matches("deep"));
  EXPECT_TRUE(p.matches("a/b/deep"));
}

TEST(Patterns, AnExceptionTakesOutThatVeryPattern) {
  const auto p = patterns({".vscode", ".idea", "/a/B", "!.idea", "!/a/b/"});
  EXPECT_TRUE(p.matches(".vscode/tasks.json"));
  EXPECT_FALSE(p.matches(".idea/x"));
  EXPECT_FALSE(p.matches("a/B"));
}

TEST(Patterns, AnExceptionThatTakesOutNothingIsAMistakeUnlessTheListIsOld) {
  const auto refused = Patterns::parse({".vscode", "!.vscode/x"});
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().describe().find("takes out nothing"), std::string::npos) << refused.error().describe();
  const auto kept = Patterns::parse({".vscode", "!.vscode/x"}, Patterns::Exceptions::kMayBeStale);
  ASSERT_TRUE(kept);
  EXPECT_TRUE(kept->matches(".vscode/x"));
}

TEST(Patterns, CaseDoesNotCountInNamesAndGlobs) {
  const auto p = patterns({".Git/Hooks", "*.Code-Workspace", "Jenkins[F]ile"});
  EXPECT_TRUE(p.matches("x/.gIT/hOOKS/y"));
  EXPECT_TRUE(p.matches("a.code-WORKSPACE"));
  EXPECT_TRUE(p.matches("JENKINSFILE"));
}

TEST(Patterns, TheWayToAMatchIsKnown) {
  const auto p = patterns({".git/hooks", ".git/modules/**/config", ".npmrc"});
  using enum Patterns::Kind;
  EXPECT_TRUE(p.lies_on_way(".git", kFile));
  EXPECT_TRUE(p.lies_on_way("a/.git", kOther));
  EXPECT_FALSE(p.lies_on_way("a", kOther));
  EXPECT_TRUE(p.lies_on_way(".git/modules/x", kOther));
  EXPECT_FALSE(p.lies_on_way(".git/modules/x", kFile));
  EXPECT_FALSE(p.lies_on_way("", kOther));
}

TEST(Patterns, WhatIsNoPatternIsRefused) {
  for (const std::string text : {"", "/", "!", "a//b", "../a", "a/./b", "**", "/**", "a//", "//a"}) {
    EXPECT_FALSE(Patterns::parse({text})) << text;
  }
  EXPECT_FALSE(Patterns::parse({std::string(2000, 'a')}));
  std::string deep = "a";
  for (int i = 0; i < 40; ++i) deep += "/a";
  EXPECT_FALSE(Patterns::parse({deep}));
}

TEST(Patterns, ManyStarsCostLittle) {
  std::string pattern = "/x";
  for (int i = 0; i < 10; ++i) pattern += "/**/a";
  const auto p = patterns({pattern, "*a*a*a*a*a*a*a*a*a*a*b"});
  std::string path = "x";
  for (int i = 0; i < 500; ++i) path += "/a";
  EXPECT_FALSE(p.matches("x/" + std::string(250, 'a')));
  EXPECT_TRUE(p.matches(path));
}

TEST(Patterns, TheDefaultsAreOnes) {
  const auto p = Patterns::parse(default_protected());
  ASSERT_TRUE(p);
  for (const auto* path : {".git/hooks/pre-commit", "sub/.git/config", ".gitmodules", ".git/info/attributes",
                           ".vscode/tasks.json", ".idea/workspace.xml", ".github/workflows/ci.yml", ".gitlab-ci.yml",
                           ".envrc", ".npmrc", ".yarnrc.yml", ".pnpmfile.cjs", ".cargo/config.toml", "pip.conf"}) {
    EXPECT_TRUE(p->matches(path)) << path;
  }
  for (const auto* path : {"Makefile", ".git/index", ".git/objects/ab/cd", ".git/config.lock", "src/config"}) {
    EXPECT_FALSE(p->matches(path)) << path;
  }
}

}  // namespace
}  // namespace sbx::files
