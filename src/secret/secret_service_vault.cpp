#include "secret/secret_service_vault.h"

#include <libsecret/secret.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <thread>

namespace sbx::secret {
namespace {

constexpr auto kPatience = std::chrono::minutes(2);

const SecretSchema kSchema = {"io.sbx.Secret",
                              SECRET_SCHEMA_DONT_MATCH_NAME,
                              {{"application", SECRET_SCHEMA_ATTRIBUTE_STRING},
                               {"instance", SECRET_SCHEMA_ATTRIBUTE_STRING},
                               {"key", SECRET_SCHEMA_ATTRIBUTE_STRING},
                               {nullptr, SECRET_SCHEMA_ATTRIBUTE_STRING}},
                              0,
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr,
                              nullptr};

template <typename T>
using GObjectPtr = std::unique_ptr<T, decltype(&g_object_unref)>;
template <typename T>
GObjectPtr<T> owned(T* object) {
  return {object, g_object_unref};
}
using Attributes = std::unique_ptr<GHashTable, decltype(&g_hash_table_unref)>;
using SecretPtr = std::unique_ptr<SecretValue, decltype(&secret_value_unref)>;

// Cancels a call that nobody answers (a prompt on a screen that nobody looks at).
class Deadline {
 public:
  Deadline() : cancellable_(owned(g_cancellable_new())), thread_([this] { watch(); }) {}
  ~Deadline() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;
  GCancellable* get() const { return cancellable_.get(); }

 private:
  void watch() {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kPatience, [this] { return over_; })) g_cancellable_cancel(cancellable_.get());
  }
  GObjectPtr<GCancellable> cancellable_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;  // last: it uses the others
};

std::unexpected<Error> failed(GError* error) {
  const std::string message = error != nullptr ? error->message : "no answer";
  const bool gave_up = error != nullptr && g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED) != 0;
  g_clear_error(&error);
  if (gave_up) return fail(ErrorCode::kTimeout, "the Secret Service was not unlocked in time");
  return fail(ErrorCode::kUnavailable,
              "the Secret Service, which holds this instance's secrets, does not answer: " + message);
}

bool has_bus() {
  if (const char* address = std::getenv("DBUS_SESSION_BUS_ADDRESS"); address != nullptr && *address != '\0')
    return true;
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  return runtime != nullptr && ::access((std::string(runtime) + "/bus").c_str(), R_OK | W_OK) == 0;
}

Result<GObjectPtr<SecretService>> service(GCancellable* cancellable) {
  if (!has_bus())
    return fail(ErrorCode::kUnavailable,
                "the Secret Service, which holds this instance's secrets, cannot be reached: there is no session bus; "
                "start the daemon from the desktop session (sbx daemon restart)");
  GError* error = nullptr;
  SecretService* found = secret_service_get_sync(SECRET_SERVICE_OPEN_SESSION, cancellable, &error);
  if (found == nullptr) return failed(error);
  return owned(found);
}

Attributes attributes(const std::string& instance, const std::string& key) {
  GHashTable* table = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
  const auto put = [table](const char* name, const std::string& value) {
    g_hash_table_insert(table, g_strdup(name), g_strdup(value.c_str()));
  };
  put("application", "sbx");
  put("instance", instance);
  if (!key.empty()) put("key", key);
  return {table, g_hash_table_unref};
}

Result<Entry> entry_of(SecretItem* item) {
  const Attributes found(secret_item_get_attributes(item), g_hash_table_unref);
  const auto* key = static_cast<const char*>(g_hash_table_lookup(found.get(), "key"));
  const SecretPtr value(secret_item_get_secret(item), secret_value_unref);
  if (key == nullptr || !value)
    return fail(ErrorCode::kUnavailable, "the keyring gave no secret; unlock it and try again");
  gsize length = 0;
  const gchar* bytes = secret_value_get(value.get(), &length);
  return Entry{key, SBX_TRY(LockedString::copy_of({bytes, length}), "reading a secret")};
}

}  // namespace

bool SecretServiceVault::available() {
  if (!has_bus()) return false;
  const Deadline deadline;
  auto found = service(deadline.get());
  if (!found) return false;
  GError* error = nullptr;
  SecretCollection* collection = secret_collection_for_alias_sync(found->get(), SECRET_COLLECTION_DEFAULT,
                                                                  SECRET_COLLECTION_NONE, deadline.get(), &error);
  g_clear_error(&error);
  if (collection == nullptr) return false;
  g_object_unref(collection);
  return true;
}

Result<std::vector<Entry>> SecretServiceVault::load() {
  const Deadline deadline;
  const auto bus = SBX_TRY(service(deadline.get()), "reaching the Secret Service");
  GError* error = nullptr;
  const auto flags =
      static_cast<SecretSearchFlags>(SECRET_SEARCH_ALL | SECRET_SEARCH_UNLOCK | SECRET_SEARCH_LOAD_SECRETS);
  GList* items =
      secret_service_search_sync(bus.get(), &kSchema, attributes(instance_, "").get(), flags, deadline.get(), &error);
  if (error != nullptr) return failed(error);
  Result<std::vector<Entry>> entries;
  for (GList* at = items; at != nullptr && entries; at = at->next) {
    auto entry = entry_of(SECRET_ITEM(at->data));
    if (entry)
      entries->push_back(std::move(*entry));
    else
      entries = std::unexpected(entry.error());
  }
  g_list_free_full(items, g_object_unref);
  return entries;
}

Result<void> SecretServiceVault::save(const std::vector<Entry>& entries, const std::string& key) {
  const Deadline deadline;
  const auto bus = SBX_TRY(service(deadline.get()), "reaching the Secret Service");
  const auto wanted = attributes(instance_, key);
  const auto found = std::ranges::find(entries, key, &Entry::key);
  GError* error = nullptr;
  if (found == entries.end()) {
    secret_service_clear_sync(bus.get(), &kSchema, wanted.get(), deadline.get(), &error);
    return error == nullptr ? Result<void>() : failed(error);
  }
  const auto bytes = found->bytes.reveal();
  const SecretPtr value(secret_value_new(bytes.data(), static_cast<gssize>(bytes.size()), "application/octet-stream"),
                        secret_value_unref);
  if (secret_service_store_sync(bus.get(), &kSchema, wanted.get(), SECRET_COLLECTION_DEFAULT, ("sbx " + key).c_str(),
                                value.get(), deadline.get(), &error) == 0)
    return failed(error);
  return {};
}

}  // namespace sbx::secret
