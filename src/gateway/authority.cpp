#include "gateway/authority.h"

#include <arpa/inet.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>

namespace sbx::gateway {
namespace {

constexpr std::chrono::hours kClockSkew{1};
constexpr std::chrono::hours kRootLifetime{24 * 3650};
constexpr std::chrono::hours kLeafLifetime{24 * 7};
constexpr std::size_t kMaxCommonName = 64;  // RFC 5280, ub-common-name

using BioPtr = std::unique_ptr<BIO, OpensslFree<BIO, BIO_free_all>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, OpensslFree<X509_EXTENSION, X509_EXTENSION_free>>;

std::unexpected<Error> fail_openssl(std::string_view what) {
  std::array<char, 256> text{};
  ERR_error_string_n(ERR_get_error(), text.data(), text.size());
  ERR_clear_error();
  return fail(ErrorCode::kInternal, std::string(what) + ": " + text.data());
}

Result<KeyPtr> make_key() {
  KeyPtr key(EVP_EC_gen("P-256"));
  if (!key) return fail_openssl("making a key");
  return key;
}

Result<void> set_serial(X509* certificate) {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), bytes.size()) != 1) return fail_openssl("making a serial number");
  bytes[0] = (bytes[0] & 0x3fU) | 0x40U;  // positive, and always 16 bytes
  BIGNUM* number = BN_bin2bn(bytes.data(), bytes.size(), nullptr);
  const bool ok = number != nullptr && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nullptr;
  BN_free(number);
  if (!ok) return fail_openssl("making a serial number");
  return {};
}

Result<void> add_extension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  if (!extension || X509_add_ext(certificate, extension.get(), -1) != 1) return fail_openssl("adding an extension");
  return {};
}

// The alternative name as an object, not as configuration text: a name is never parsed as syntax.
Result<void> add_alternative_name(X509* certificate, std::string_view host) {
  GENERAL_NAMES* names = GENERAL_NAMES_new();
  GENERAL_NAME* name = GENERAL_NAME_new();
  ASN1_STRING* text = nullptr;
  std::array<unsigned char, 16> address{};
  const std::string copy(host);
  if (::inet_pton(AF_INET, copy.c_str(), address.data()) == 1) {
    text = ASN1_OCTET_STRING_new();
    ASN1_STRING_set(text, address.data(), 4);
    GENERAL_NAME_set0_value(name, GEN_IPADD, text);
  } else if (::inet_pton(AF_INET6, copy.c_str(), address.data()) == 1) {
    text = ASN1_OCTET_STRING_new();
    ASN1_STRING_set(text, address.data(), 16);
    GENERAL_NAME_set0_value(name, GEN_IPADD, text);
  } else {
    text = ASN1_IA5STRING_new();
    ASN1_STRING_set(text, copy.data(), static_cast<int>(copy.size()));
    GENERAL_NAME_set0_value(name, GEN_DNS, text);
  }
  sk_GENERAL_NAME_push(names, name);
  const int added = X509_add1_ext_i2d(certificate, NID_subject_alt_name, names, 0, X509V3_ADD_DEFAULT);
  GENERAL_NAMES_free(names);
  if (added != 1) return fail_openssl("adding the name");
  return {};
}

void add_name_entry(X509_NAME* name, const char* field, std::string_view value) {
  X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(value.data()),
                             static_cast<int>(value.size()), -1, 0);
}

struct Plan {
  std::string_view common_name;
  bool organisation = true;
  X509* issuer = nullptr;  // null: self-signed
  EVP_PKEY* issuer_key = nullptr;
  EVP_PKEY* key = nullptr;
  std::chrono::seconds lifetime{};
  const char* constraints = "";
  const char* usage = "";
};

// All but the signature.
Result<CertificatePtr> draft(const Plan& plan) {
  CertificatePtr certificate(X509_new());
  if (!certificate) return fail_openssl("making a certificate");
  X509_set_version(certificate.get(), X509_VERSION_3);
  SBX_CHECK(set_serial(certificate.get()), "making a certificate");
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -static_cast<long>(std::chrono::seconds(kClockSkew).count()));
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), static_cast<long>(plan.lifetime.count()));
  X509* issuer = plan.issuer != nullptr ? plan.issuer : certificate.get();
  if (plan.issuer != nullptr &&
      ASN1_TIME_compare(X509_get0_notAfter(issuer), X509_get0_notAfter(certificate.get())) < 0) {
    X509_set1_notAfter(certificate.get(), X509_get0_notAfter(issuer));
  }
  X509_NAME* name = X509_get_subject_name(certificate.get());
  if (plan.organisation) add_name_entry(name, "O", "sbx");
  add_name_entry(name, "CN", plan.common_name.substr(0, kMaxCommonName));
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer));
  if (X509_set_pubkey(certificate.get(), plan.key) != 1) return fail_openssl("making a certificate");
  SBX_CHECK(add_extension(certificate.get(), issuer, NID_basic_constraints, plan.constraints), "basic constraints");
  SBX_CHECK(add_extension(certificate.get(), issuer, NID_key_usage, plan.usage), "key usage");
  SBX_CHECK(add_extension(certificate.get(), issuer, NID_subject_key_identifier, "hash"), "key identifier");
  if (plan.issuer != nullptr) {
    SBX_CHECK(add_extension(certificate.get(), issuer, NID_authority_key_identifier, "keyid:always"), "issuer");
  }
  return certificate;
}

Result<void> sign(X509* certificate, EVP_PKEY* key) {
  if (X509_sign(certificate, key, EVP_sha256()) == 0) return fail_openssl("signing a certificate");
  return {};
}

Result<std::string> drain(BIO* bio) {
  BUF_MEM* memory = nullptr;
  BIO_get_mem_ptr(bio, &memory);
  if (memory == nullptr) return fail_openssl("writing PEM");
  return std::string(memory->data, memory->length);
}

Result<CertifiedKey> to_pem(X509* certificate, EVP_PKEY* key) {
  CertifiedKey result;
  const BioPtr out(BIO_new(BIO_s_mem()));
  if (!out || PEM_write_bio_X509(out.get(), certificate) != 1) return fail_openssl("writing a certificate");
  result.certificate = SBX_TRY(drain(out.get()), "writing a certificate");
  const BioPtr secret(BIO_new(BIO_s_secmem()));
  if (!secret || PEM_write_bio_PrivateKey(secret.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return fail_openssl("writing a key");
  }
  result.key = SBX_TRY(drain(secret.get()), "writing a key");
  return result;
}

Result<CertificatePtr> read_certificate(std::string_view pem) {
  const BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  CertificatePtr certificate(in ? PEM_read_bio_X509(in.get(), nullptr, nullptr, nullptr) : nullptr);
  ERR_clear_error();
  if (!certificate) return fail(ErrorCode::kInvalid, "this is not a certificate in PEM");
  return certificate;
}

Result<KeyPtr> read_key(std::string_view pem) {
  const BioPtr in(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  // A password is never asked for.
  const auto none = [](char*, int, int, void*) { return 0; };
  KeyPtr key(in ? PEM_read_bio_PrivateKey(in.get(), nullptr, none, nullptr) : nullptr);
  ERR_clear_error();
  if (!key) return fail(ErrorCode::kInvalid, "this is not an unencrypted private key in PEM");
  return key;
}

}  // namespace

Result<CertifiedKey> make_root(std::string_view name) {
  const auto key = SBX_TRY(make_key(), "making the root");
  Plan plan;
  plan.common_name = name;
  plan.key = key.get();
  plan.lifetime = kRootLifetime;
  plan.constraints = "critical,CA:TRUE,pathlen:1";
  plan.usage = "critical,keyCertSign,cRLSign";
  const auto certificate = SBX_TRY(draft(plan), "making the root");
  SBX_CHECK(sign(certificate.get(), key.get()), "making the root");
  return to_pem(certificate.get(), key.get());
}

Result<CertifiedKey> make_intermediate(const CertifiedKey& root, std::string_view name, std::chrono::seconds lifetime) {
  const auto issuer = SBX_TRY(read_certificate(root.certificate), "reading the root");
  const auto issuer_key = SBX_TRY(read_key(root.key), "reading the root");
  const auto key = SBX_TRY(make_key(), "making an intermediate");
  Plan plan;
  plan.common_name = name;
  plan.issuer = issuer.get();
  plan.key = key.get();
  plan.lifetime = lifetime;
  plan.constraints = "critical,CA:TRUE,pathlen:0";
  plan.usage = "critical,keyCertSign,cRLSign";
  const auto certificate = SBX_TRY(draft(plan), "making an intermediate");
  SBX_CHECK(add_extension(certificate.get(), issuer.get(), NID_ext_key_usage, "serverAuth"), "making an intermediate");
  SBX_CHECK(sign(certificate.get(), issuer_key.get()), "making an intermediate");
  return to_pem(certificate.get(), key.get());
}

Result<std::chrono::seconds> remaining_lifetime(std::string_view pem) {
  const auto certificate = SBX_TRY(read_certificate(pem), "reading a certificate");
  int days = 0;
  int seconds = 0;
  if (ASN1_TIME_diff(&days, &seconds, nullptr, X509_get0_notAfter(certificate.get())) != 1) {
    return fail(ErrorCode::kInvalid, "the certificate's end cannot be read");
  }
  return std::chrono::seconds(days * 86400LL + seconds);
}

Result<Issuer> Issuer::make(const CertifiedKey& intermediate) {
  Issuer issuer;
  issuer.certificate_ = SBX_TRY(read_certificate(intermediate.certificate), "reading the intermediate");
  issuer.key_ = SBX_TRY(read_key(intermediate.key), "reading the intermediate");
  if (X509_check_private_key(issuer.certificate_.get(), issuer.key_.get()) != 1) {
    ERR_clear_error();
    return fail(ErrorCode::kInvalid, "the intermediate's key is not its certificate's");
  }
  issuer.leaf_key_ = SBX_TRY(make_key(), "making the leaves' key");
  return issuer;
}

Result<CertificatePtr> Issuer::issue(std::string_view host) const {
  Plan plan;
  plan.common_name = host;
  plan.organisation = false;
  plan.issuer = certificate_.get();
  plan.key = leaf_key_.get();
  plan.lifetime = kLeafLifetime;
  plan.constraints = "critical,CA:FALSE";
  plan.usage = "critical,digitalSignature";
  auto certificate = SBX_TRY(draft(plan), "making a leaf");
  SBX_CHECK(add_extension(certificate.get(), certificate_.get(), NID_ext_key_usage, "serverAuth"), "making a leaf");
  SBX_CHECK(add_alternative_name(certificate.get(), host), "making a leaf");
  SBX_CHECK(sign(certificate.get(), key_.get()), "making a leaf");
  return certificate;
}

}  // namespace sbx::gateway
