# Builds the module, the command and the unit tests into build/ (see README). Nothing here needs root.
#
#   make module      build/ngx_http_billing_module.so
#   make command     build/ngx-billing
#   make unit        build/unit-tests
#   make sanitized   module and unit tests with ASan and UBSan, in build/asan/
#
# Core sources are compiled once, by nginx's own rules (config), and serve all three. BUILD=dir builds elsewhere.

BUILD ?= build
NGINX_SOURCE ?= /usr/share/nginx/src
override BUILD := $(abspath $(BUILD))

SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:

ifdef SANITIZE
OUT := $(BUILD)/asan
SANITIZER := -O0 -U_FORTIFY_SOURCE -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize=vptr -Wno-error
else
OUT := $(BUILD)
SANITIZER :=
endif

CORE := $(shell script/sources core)
COMMAND := $(filter-out $(CORE),$(shell script/sources command))
MODULE := $(filter-out $(CORE),$(shell script/sources module))
UNIT := $(shell script/sources unit)

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Werror
CXXFLAGS ?= -O2 -g
OURS := -std=c++20 $(WARNINGS) -Isrc -isystem $(or $(shell pg_config --includedir 2>/dev/null),/usr/include/postgresql) \
        -MMD -MP $(CXXFLAGS) $(SANITIZER)
LIBRARIES := -Wl,--as-needed -lhiredis -lpq -lcurl -ljansson -lcrypto -lfmt -pthread

.PHONY: all module command unit sanitized clean core
all: module command
module: $(OUT)/ngx_http_billing_module.so
command: $(OUT)/ngx-billing
unit: $(OUT)/unit-tests
sanitized:
	+@$(MAKE) --no-print-directory SANITIZE=1 module unit
clean:
	rm -rf $(BUILD)

# --- nginx's part -----------------------------------------------------------------------------------------------------
# Configured anew when the recipe, the list of sources, nginx's headers or the compiler change; the sanitized build takes a
# copy of the configured folder with other flags. Objects depend on `flags`, which changes only when its content does.

CC_OPT := -g -O2 -fPIC -fstack-protector-strong -Wformat -Werror=format-security -Wdate-time -D_FORTIFY_SOURCE=2 -MMD -MP
LD_OPT := -Wl,-z,relro -Wl,-z,now -fPIC

ifeq ($(wildcard $(NGINX_SOURCE)/conf_flags),)
$(error $(NGINX_SOURCE)/conf_flags not found: apt-get install nginx-dev (script/setup does), or set NGINX_SOURCE)
endif

if_changed = if cmp -s $(1).new $(1); then rm $(1).new; else mv $(1).new $(1); fi

$(shell mkdir -p $(OUT)/nginx $(BUILD)/nginx)
$(shell { echo '$(CURDIR) $(BUILD) $(CORE) $(MODULE) $(CC_OPT) $(LD_OPT)'; cat config $(NGINX_SOURCE)/conf_flags; $(CC) --version; \
          find $(NGINX_SOURCE)/src $(NGINX_SOURCE)/auto -type f | LC_ALL=C sort | xargs cat | cksum; } > $(BUILD)/inputs.new; \
        $(call if_changed,$(BUILD)/inputs))

$(BUILD)/nginx/Makefile: $(BUILD)/inputs
	@echo "configure nginx's part"
	@. $(NGINX_SOURCE)/conf_flags && cd $(NGINX_SOURCE) && \
	    ./configure --with-cc='$(CC)' --with-cc-opt='$(CC_OPT)' --with-ld-opt='$(LD_OPT)' "$${NGX_CONF_FLAGS[@]}" \
	    --add-dynamic-module=$(CURDIR) --builddir=$(BUILD)/nginx > $(BUILD)/configure.log 2>&1 || \
	    { grep -h 'error: ' $(BUILD)/configure.log || tail -5 $(BUILD)/configure.log; rm -f $@; exit 1; } >&2

ifdef SANITIZE
$(OUT)/nginx/Makefile: $(BUILD)/nginx/Makefile
	@cd $(BUILD)/nginx && cp ngx_auto_config.h ngx_auto_headers.h ngx_http_billing_module_modules.c billing_exports.map $(@D)
	@find $(BUILD)/nginx/addon -type d -printf '%P\n' | (mkdir -p $(@D)/addon && cd $(@D)/addon && xargs -r mkdir -p)
	@sed 's,$(BUILD)/nginx,$(OUT)/nginx,g' $< > $@
endif

$(OUT)/nginx/flags: $(OUT)/nginx/Makefile Makefile
	@{ grep '^CFLAGS' $<; grep -v NGX_CONFIGURE $(<D)/ngx_auto_config.h; tail -1 $(BUILD)/inputs; echo '$(SANITIZER)'; } > $@.new; \
	    $(call if_changed,$@)

NGINX_OBJECT = $(foreach file,$(1),$(OUT)/nginx/addon/$(notdir $(patsubst %/,%,$(dir $(abspath $(file)))))/$(basename $(notdir $(file))).o)
CORE_OBJECTS := $(call NGINX_OBJECT,$(CORE))

# The generated rules know headers only as one list; the compiler's own .d files say which object needs which.
NGINX_MAKE = $(MAKE) --no-print-directory -s -C $(NGINX_SOURCE) -f $(OUT)/nginx/Makefile \
             --eval='-include $$(wildcard $(OUT)/nginx/addon/*/*.d)' ADDON_DEPS=$(OUT)/nginx/flags \
             BILLING_CXXFLAGS='$(SANITIZER)' LINK='$(CC) $(SANITIZER)'

core: $(OUT)/nginx/flags
	+@$(if $(CORE),$(NGINX_MAKE) $(CORE_OBJECTS),:)
$(CORE_OBJECTS): core
	@:

.PHONY: nginx-module
nginx-module: core
	+@$(NGINX_MAKE) modules
$(OUT)/ngx_http_billing_module.so: nginx-module
	@cmp -s $(OUT)/nginx/$(@F) $@ || { install -m 644 $(OUT)/nginx/$(@F) $@.new && mv $@.new $@ && echo "built $(@:$(CURDIR)/%=%)"; }

# --- the command and the unit tests -----------------------------------------------------------------------------------

OBJECT = $(patsubst %.cpp,$(OUT)/obj/%.o,$(1))
COMMAND_OBJECTS := $(call OBJECT,$(COMMAND))
UNIT_OBJECTS := $(call OBJECT,$(UNIT))

# A file that went away changes no object: the list itself is a prerequisite of the links.
$(shell echo '$(CORE) $(COMMAND) $(UNIT)' > $(OUT)/objects.new; $(call if_changed,$(OUT)/objects))

$(OUT)/ngx-billing: $(CORE_OBJECTS) $(COMMAND_OBJECTS) $(OUT)/objects
	@$(CXX) $(SANITIZER) -o $@.new $(filter %.o,$^) $(LIBRARIES) && mv $@.new $@ && echo "built $(@:$(CURDIR)/%=%)"
$(OUT)/unit-tests: $(CORE_OBJECTS) $(UNIT_OBJECTS) $(OUT)/objects
	@$(CXX) $(SANITIZER) -o $@.new $(filter %.o,$^) -lgtest_main -lgtest $(LIBRARIES) && mv $@.new $@ && echo "built $(@:$(CURDIR)/%=%)"

$(shell echo '$(CXX) $(OURS)' > $(OUT)/flags.new; $(call if_changed,$(OUT)/flags))

# Tests of SQL apply the migrations themselves.
$(UNIT_OBJECTS): OURS += -DBILLING_MIGRATIONS='"$(CURDIR)/migrations"'

$(OUT)/obj/%.o: %.cpp $(OUT)/flags
	@mkdir -p $(@D)
	@echo "compile $<"
	@$(CXX) $(OURS) -c -o $@ $<

-include $(wildcard $(OUT)/obj/*/*.d $(OUT)/obj/*/*/*.d)

# Keeps an unloaded module's symbols for the sanitizers' reports: preloaded into the nginx under test.
ifdef SANITIZE
module: $(OUT)/keep_loaded.so
$(OUT)/keep_loaded.so:
	@echo 'int dlclose(void *handle) { (void) handle; return 0; }' | $(CC) -shared -fPIC -x c -o $@ -
endif
