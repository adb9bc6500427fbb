#include "secret/services.h"

#include <algorithm>
#include <array>

namespace sbx::secret {
namespace {

constexpr std::string_view kAuthorization = "authorization";
constexpr std::string_view kBearer = "Bearer %s";

constexpr std::string_view kAnthropicDomains[] = {"api.anthropic.com", "console.anthropic.com", "claude.ai",
                                                  "mcp-proxy.anthropic.com"};
constexpr Injection kAnthropic[] = {{kAnthropicDomains, "x-api-key", "%s", ""}};

constexpr std::string_view kCursorDomains[] = {"api2.cursor.sh", "api3.cursor.sh", "repo42.cursor.sh", "cursor.com"};
constexpr Injection kCursor[] = {{kCursorDomains, kAuthorization, kBearer, ""}};

constexpr std::string_view kDroidDomains[] = {"api.factory.ai", "app.factory.ai", "relay.factory.ai"};
constexpr Injection kDroid[] = {{kDroidDomains, kAuthorization, kBearer, ""}};

// Git over HTTPS wants Basic with this user name; the APIs take the token as a bearer.
constexpr std::string_view kGithubApis[] = {"api.github.com", "raw.githubusercontent.com", "copilot.github.com",
                                            "api.githubcopilot.com"};
constexpr std::string_view kGithubGit[] = {"github.com", "gist.github.com"};
constexpr Injection kGithub[] = {{kGithubApis, kAuthorization, kBearer, ""},
                                 {kGithubGit, kAuthorization, "", "x-access-token"}};

// An API key; as a bearer it would be taken for an OAuth token.
constexpr std::string_view kGoogleDomains[] = {"generativelanguage.googleapis.com", "oauth2.googleapis.com",
                                               "aiplatform.googleapis.com", "vertexai.googleapis.com"};
constexpr Injection kGoogle[] = {{kGoogleDomains, "x-goog-api-key", "%s", ""}};

constexpr std::string_view kGroqDomains[] = {"api.groq.com"};
constexpr Injection kGroq[] = {{kGroqDomains, kAuthorization, kBearer, ""}};

constexpr std::string_view kMistralDomains[] = {"api.mistral.ai"};
constexpr Injection kMistral[] = {{kMistralDomains, kAuthorization, kBearer, ""}};

constexpr std::string_view kNebiusDomains[] = {"api.studio.nebius.com", "api.tokenfactory.nebius.com"};
constexpr Injection kNebius[] = {{kNebiusDomains, kAuthorization, kBearer, ""}};

constexpr std::string_view kOpenaiDomains[] = {"api.openai.com", "openai.com", "chatgpt.com", "www.chatgpt.com"};
constexpr Injection kOpenai[] = {{kOpenaiDomains, kAuthorization, kBearer, ""}};

constexpr std::string_view kOpenrouterDomains[] = {"openrouter.ai"};
constexpr Injection kOpenrouter[] = {{kOpenrouterDomains, kAuthorization, kBearer, ""}};

constexpr std::string_view kXaiDomains[] = {"api.x.ai"};
constexpr Injection kXai[] = {{kXaiDomains, kAuthorization, kBearer, ""}};

constexpr std::string_view kAnthropicEnv[] = {"ANTHROPIC_API_KEY"};
constexpr std::string_view kCursorEnv[] = {"CURSOR_API_KEY"};
constexpr std::string_view kDroidEnv[] = {"FACTORY_API_KEY"};
constexpr std::string_view kGithubEnv[] = {"GH_TOKEN", "GITHUB_TOKEN"};
constexpr std::string_view kGoogleEnv[] = {"GEMINI_API_KEY", "GOOGLE_API_KEY"};
constexpr std::string_view kGroqEnv[] = {"GROQ_API_KEY"};
constexpr std::string_view kMistralEnv[] = {"MISTRAL_API_KEY"};
constexpr std::string_view kNebiusEnv[] = {"NEBIUS_API_KEY"};
constexpr std::string_view kOpenaiEnv[] = {"OPENAI_API_KEY"};
constexpr std::string_view kOpenrouterEnv[] = {"OPENROUTER_API_KEY"};
constexpr std::string_view kXaiEnv[] = {"XAI_API_KEY"};

constexpr std::array kServices = {
    Service{"anthropic", kAnthropicEnv, kAnthropic},
    Service{"cursor", kCursorEnv, kCursor},
    Service{"droid", kDroidEnv, kDroid},
    Service{"github", kGithubEnv, kGithub},
    Service{"google", kGoogleEnv, kGoogle},
    Service{"groq", kGroqEnv, kGroq},
    Service{"mistral", kMistralEnv, kMistral},
    Service{"nebius", kNebiusEnv, kNebius},
    Service{"openai", kOpenaiEnv, kOpenai},
    Service{"openrouter", kOpenrouterEnv, kOpenrouter},
    Service{"xai", kXaiEnv, kXai},
};

// The same client uses either host, by its version.
constexpr TokenEndpoint kAnthropicTokens[] = {{"console.anthropic.com", "/v1/oauth/token"},
                                              {"platform.claude.com", "/v1/oauth/token"}};
constexpr std::array kOAuthFlows = {
    OAuthFlow{"anthropic", kAnthropicTokens, kAnthropicDomains, "sk-ant-oat01-proxy-managed",
              "sk-ant-ort01-proxy-managed"},
};

}  // namespace

std::span<const Service> services() { return kServices; }
std::span<const OAuthFlow> oauth_flows() { return kOAuthFlows; }

const Service* find_service(std::string_view name) {
  const auto found = std::ranges::find(kServices, name, &Service::name);
  return found == kServices.end() ? nullptr : &*found;
}

const OAuthFlow* find_oauth_flow(std::string_view service) {
  const auto found = std::ranges::find(kOAuthFlows, service, &OAuthFlow::service);
  return found == kOAuthFlows.end() ? nullptr : &*found;
}

}  // namespace sbx::secret
