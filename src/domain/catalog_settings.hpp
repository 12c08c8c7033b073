// What a catalog leaves to the machine that it is read on: `${NAME}` in any of its texts, and the id of a price that is
// env:NAME or file:PATH. Used by CatalogFile before it judges.
#pragma once

#include "domain/json.hpp"

#include <set>
#include <string>

namespace billing {

struct CatalogSettings {
    std::string folder;                             // of the catalog, for file:PATH that is not absolute
    std::set<std::string, std::less<>> environment; // the variables that were named

    // Writes into the document what its settings are. One problem a line, as the judge's.
    std::string fill_in(json_t* root);
};

} // namespace billing
