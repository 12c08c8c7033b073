// ngx-billing catalog push: what the catalog sells is made at Stripe, once, and found again by names of ours; the ids
// of its prices are written to PostgreSQL, where checkouts find them.
#include "cli/command.hpp"
#include "cli/digest.hpp"
#include "cli/output.hpp"
#include "cli/passes.hpp"
#include "cli/stripe_offer.hpp"
#include "domain/catalog_file.hpp"

#include <fmt/format.h>

namespace billing {

namespace {

constexpr const char* k_portal_mark = "ngx_billing";   // in the metadata of the configuration that is ours
constexpr const char* k_digest = "ngx_billing_digest"; // of the form that made an object as it is

// Each step answers whether to go on; what hinders has been said, and is in code_.
class CatalogPush {
public:
    CatalogPush(StripeWork work, PushOptions wanted, bool json)
        : work_(work), wanted_(std::move(wanted)), json_(json) {}

    Task<int> run(std::string document) {
        bool good = co_await read_catalog(std::move(document));
        for (std::size_t index = 0; good && index < offers_.size(); ++index) {
            good = co_await push_offer(offers_[index]);
        }
        if (good) {
            good = co_await push_portal();
        }
        if (good && !wanted_.dry_run) {
            good = co_await write_back();
        }
        if (good) {
            finish();
        }
        co_return code_;
    }

private:
    // The ids that prices have got before are in PostgreSQL.
    Task<bool> read_catalog(std::string document) {
        PgParams parameters{document};
        PgResult result =
            co_await work_.postgres.query("SELECT billing.catalog_with_ids($1::jsonb)", std::move(parameters));
        if (!result) {
            code_ = explain_failure(result);
            co_return false;
        }
        auto parsed = parse_json(result.text(0, 0));
        if (!parsed) {
            co_return stop(k_exit_failed, "PostgreSQL's answer cannot be read");
        }
        catalog_ = std::move(parsed).value();
        offers_ = offers_of(catalog_.get());
        co_return true;
    }

    Task<bool> push_offer(Offer& offer) {
        bool good = true;
        for (std::size_t index = 0; good && index < offer.prices.size(); ++index) {
            OfferPrice& price = offer.prices[index];
            if (price.id.empty()) {
                good = co_await find_price(offer, price);
            } else {
                good = co_await check_price(offer, price);
            }
        }
        if (good) {
            good = co_await push_product(offer);
        }
        for (std::size_t index = 0; good && index < offer.prices.size(); ++index) {
            if (offer.prices[index].id.empty()) {
                good = co_await make_price(offer, offer.prices[index]);
            }
        }
        co_return good;
    }

    Task<bool> check_price(Offer& offer, OfferPrice& price) {
        Form none;
        StripeReply reply = co_await work_.stripe.get("/v1/prices/" + price.id, std::move(none));
        if (reply.refusal == Refusal::missing_object) {
            co_return stop(k_exit_failed, price.path + ".id: Stripe does not know " + price.id +
                                              "; is the key of the same account, and of the same mode?");
        }
        if (!reply) {
            co_return refused(reply);
        }
        const std::string wrong = difference(price, reply.json.get());
        if (!wrong.empty()) {
            co_return stop(k_exit_failed, price.path + ".id: " + price.id + " " + wrong +
                                              " at Stripe; remove the id, and a price of the catalog's is made");
        }
        offer.product = text_of(reply.json.get(), "product");
        tell("found", price.id, price.path);
        co_return true;
    }

    Task<bool> find_price(Offer& offer, OfferPrice& price) {
        Form query;
        query.add("lookup_keys[0]", offer.lookup_key(price)).add("limit", 1);
        StripeReply reply = co_await work_.stripe.get("/v1/prices", std::move(query));
        if (!reply) {
            co_return refused(reply);
        }
        const json_t* const found = json_array_get(json_object_get(reply.json.get(), "data"), 0);
        if (found == nullptr) {
            co_return true;
        }
        offer.product = text_of(found, "product");
        if (difference(price, found).empty()) {
            take(price, text_of(found, "id"));
            tell("found", price.id, price.path);
        }
        co_return true;
    }

    // A product that somebody has made by hand, and whose price the catalog names, is not ours to change.
    Task<bool> push_product(Offer& offer) {
        const bool own = offer.product.empty() || offer.product == offer.own_product();
        if (!own) {
            co_return true;
        }
        Form form = product_form(offer);
        const std::string digest = sha256_of(form.text());
        form.add("metadata", k_digest, digest);
        Form query;
        query.add("ids[0]", offer.own_product());
        StripeReply reply = co_await work_.stripe.get("/v1/products", std::move(query));
        if (!reply) {
            co_return refused(reply);
        }
        offer.product = offer.own_product();
        const json_t* const found = json_array_get(json_object_get(reply.json.get(), "data"), 0);
        if (found != nullptr && text_of(json_object_get(found, "metadata"), k_digest) == digest) {
            tell("found", offer.product, offer.name);
            co_return true;
        }
        std::string path = "/v1/products";
        if (found == nullptr) {
            form.add("id", offer.product);
        } else {
            path += "/" + offer.product;
        }
        tell(found == nullptr ? "created" : "changed", offer.product, offer.name);
        std::string made;
        bool good = co_await send(std::move(path), std::move(form), found == nullptr, made);
        co_return good;
    }

    Task<bool> make_price(Offer& offer, OfferPrice& price) {
        std::string id = "price_...";
        Form form = price_form(offer, price);
        bool good = co_await send("/v1/prices", std::move(form), true, id);
        if (good) {
            take(price, id);
            tell("created", id, fmt::format("{}, {} {}", price.path, price.amount, price.currency));
        }
        co_return good;
    }

    Task<bool> push_portal() {
        Form form = portal_form(offers_, wanted_.headline);
        const std::string digest = sha256_of(form.text());
        form.add("metadata", k_portal_mark, "portal").add("metadata", k_digest, digest);
        Form query;
        query.add("active", true).add("limit", 100);
        StripeReply reply = co_await work_.stripe.get("/v1/billing_portal/configurations", std::move(query));
        if (!reply) {
            co_return refused(reply);
        }
        std::size_t index = 0;
        json_t* one = nullptr;
        json_array_foreach(json_object_get(reply.json.get(), "data"), index, one) {
            const json_t* const metadata = json_object_get(one, "metadata");
            if (text_of(metadata, k_portal_mark) != "portal") {
                continue;
            }
            portal_ = text_of(one, "id");
            if (text_of(metadata, k_digest) == digest) {
                tell("found", portal_, "the customer portal's configuration");
                co_return true;
            }
        }
        const bool fresh = portal_.empty();
        std::string path = "/v1/billing_portal/configurations" + (fresh ? "" : "/" + portal_);
        std::string id = fresh ? "bpc_..." : portal_;
        bool good = co_await send(std::move(path), std::move(form), fresh, id);
        if (good) {
            portal_ = id;
            tell(fresh ? "created" : "changed", portal_, "the customer portal's configuration");
        }
        co_return good;
    }

    Task<bool> write_back() {
        PgParams parameters{dump_json(catalog_.get())};
        PgResult result =
            co_await work_.postgres.query("SELECT billing.catalog_apply($1::jsonb)", std::move(parameters));
        if (!result) {
            code_ = explain_failure(result);
        }
        co_return result.ok();
    }

    // What makes a thing is its own idempotency key: two who push at the same time make one. What changes one is not:
    // it may be changed there and back within a day. `id`: of what has come of it.
    Task<bool> send(std::string path, Form form, bool fresh, std::string& id) {
        if (wanted_.dry_run) {
            co_return true;
        }
        std::string key = "catalog:" + sha256_of(path + "?" + form.text());
        if (!fresh) {
            key += ":" + std::to_string(work_.reactor.unix_ms());
        }
        StripeReply reply = co_await work_.stripe.post(std::move(path), std::move(form), std::move(key));
        if (!reply) {
            co_return refused(reply);
        }
        id = text_of(reply.json.get(), "id");
        co_return true;
    }

    void take(OfferPrice& price, const std::string& id) {
        price.id = id;
        put_member(price.entry, "id", id);
    }

    bool refused(const StripeReply& reply) {
        Trouble trouble;
        trouble.kind = reply.kind == ReplyKind::later ? Trouble::Kind::later : Trouble::Kind::refused;
        trouble.text =
            (reply.kind == ReplyKind::later ? "no answer from Stripe: " : "Stripe refuses: ") + reply.log_text();
        code_ = end_of(trouble);
        return false;
    }

    bool stop(ExitCode code, const std::string& what) {
        code_ = fail(code, what);
        return false;
    }

    void tell(const char* done, const std::string& id, const std::string& what) {
        const bool found = std::string_view{done} == "found";
        changes_ += found ? 0 : 1;
        if (json_) {
            Json line{json_object()};
            put_member(line.get(), "done", done);
            put_member(line.get(), "id", id);
            put_member(line.get(), "what", what);
            json_array_append_new(lines_.get(), line.release());
        } else {
            fmt::print("{}{}  {}  ({})\n", wanted_.dry_run && !found ? "would be " : "", done, id, what);
        }
    }

    void finish() {
        if (!json_) {
            fmt::print("{}\n", changes_ == 0     ? "nothing to change at Stripe"
                               : wanted_.dry_run ? "nothing was changed"
                                                 : "the catalog in PostgreSQL has the ids");
            return;
        }
        const Json all{json_object()};
        json_object_set_new(all.get(), "dry_run", json_boolean(wanted_.dry_run));
        json_object_set_new(all.get(), "changed", json_boolean(changes_ > 0));
        put_member(all.get(), "portal_configuration", portal_);
        json_object_set(all.get(), "objects", lines_.get());
        fmt::print("{}\n", dump_json(all.get()));
    }

    StripeWork work_;
    PushOptions wanted_;
    bool json_;
    int code_ = k_exit_ok;
    Json catalog_;
    std::vector<Offer> offers_;
    std::string portal_;
    int changes_ = 0;
    Json lines_{json_array()};
};

Task<int> push(StripeWork work, PushOptions wanted, std::string document, bool json) {
    if (work.livemode && !wanted.live) {
        co_return fail(k_exit_usage,
                       "this is a live key: what is made can be bought for money; write --live if it shall");
    }
    CatalogPush pushing{work, std::move(wanted), json};
    const int code = co_await pushing.run(std::move(document));
    co_return code;
}

} // namespace

int catalog_push(const CommandOptions& options, const StripeOptions& stripe, const PushOptions& wanted) {
    const auto file = CatalogFile::load(wanted.path);
    if (!file) {
        return fail(k_exit_failed, file.error());
    }
    const std::string document = dump_json(file.value().document());
    return with_stripe(options, stripe,
                       [&](StripeWork work) -> Task<int> { return push(work, wanted, document, options.json); });
}

} // namespace billing
