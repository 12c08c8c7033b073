// Where in the configuration something was said, so that an error found later can name the line.
#pragma once

#include "nginx/ngx.hpp"

#include <string>

namespace billing {

struct ConfPlace {
    std::string file;
    ngx_uint_t line = 0;

    static ConfPlace here(const ngx_conf_t* cf);
};

// An error of the configuration at that place. NGX_CONF_ERROR.
char* complain(ngx_conf_t* cf, const ConfPlace& place, const std::string& what);

} // namespace billing
