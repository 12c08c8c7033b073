#include "nginx/conf_place.hpp"

namespace billing {

ConfPlace ConfPlace::here(const ngx_conf_t* cf) {
    if (cf->conf_file == nullptr || cf->conf_file->file.name.data == nullptr) {
        return {"-g", 0};
    }
    return {std::string{view(cf->conf_file->file.name)}, cf->conf_file->line};
}

char* complain(ngx_conf_t* cf, const ConfPlace& place, const std::string& what) {
    ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "billing: %s in %s:%ui", what.c_str(), place.file.c_str(), place.line);
    return static_cast<char*>(NGX_CONF_ERROR);
}

} // namespace billing
