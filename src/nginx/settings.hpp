// Settings that may be secrets: written as they are, or as file:PATH or env:NAME, so that `nginx -T` shows only where
// they are. Read by the master, at configuration.
#pragma once

#include "nginx/ngx.hpp"

#include "domain/result.hpp"

namespace billing {

// The value behind the word, which stands in http or below; surrounding white space of a file is dropped. Errors name
// the source, never the value.
Result<std::string> read_setting(ngx_conf_t* cf, std::string_view word);

// The same of a secret: without white space at its ends. Errors never hold it; a file that everybody may read is a
// warning.
Result<std::string> read_secret(ngx_conf_t* cf, std::string_view word);

// The same of a page: a whole address, or a path.
Result<std::string> read_page(ngx_conf_t* cf, std::string_view word);

// "https://host[:port][/path]" without a user or white space.
bool is_url(std::string_view text) noexcept;

} // namespace billing
