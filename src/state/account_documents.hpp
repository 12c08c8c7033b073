// What an account reads about itself, as PostgreSQL puts it together.
#pragma once

#include "async/task.hpp"
#include "domain/json.hpp"
#include "drivers/postgres.hpp"

#include <cstdint>
#include <string>

namespace billing {

struct Document {
    enum class Outcome : std::uint8_t { told, unknown_account, unavailable };

    Outcome outcome = Outcome::unavailable;
    Json json; // an object, where it was told
};

class AccountDocuments {
public:
    // References outlive the object.
    explicit AccountDocuments(Postgres& postgres) : postgres_(postgres) {}

    // Everything: plan, subscription, limits and usage, credits, and the plans on offer.
    Task<Document> status(std::string account);

    // {"tier", "quota", "remaining", "previewAllowed"} of one limit of the catalog and one feature.
    Task<Document> entitlements(std::string account, std::string limit, std::string feature);

private:
    Task<Document> ask(std::string_view sql, PgParams parameters);

    Postgres& postgres_;
};

} // namespace billing
