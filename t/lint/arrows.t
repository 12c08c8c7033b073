# The promise: includes follow the arrows of the architecture, so that each folder can be read, tested and moved without those
# above it, and only src/nginx knows nginx.
use v5.36;
use Billing::Process qw(root slurp);
use Billing::Source qw(sources bare_text);
use Test::More;

my %may = (
    domain => [],
    stripe => [qw(domain)],    # for its JSON
    async => [qw(domain)],
    drivers => [qw(async domain stripe)],
    state => [qw(drivers async domain stripe)],
    identity => [qw(state drivers async domain)],
    gate => [qw(state drivers async domain stripe)],
    endpoints => [qw(state drivers async domain stripe)],
    jobs => [qw(state drivers async domain stripe)],
    cli => [qw(jobs endpoints gate identity state drivers async domain stripe)],
    nginx => [qw(jobs endpoints gate identity state drivers async domain stripe)],
);
$may{module} = [nginx => $may{nginx}->@*];    # ngx_billing_module.cpp
$may{unit} = [grep { $_ ne 'nginx' && $_ ne 'module' } keys %may];

# What is wrong with the includes of a text that stands in this folder.
sub violations($folder, $text) {
    my @wrong;
    for my $line (split /\n/, bare_text($text, includes => 1)) {
        my ($open, $path) = $line =~ /^\s*#\s*include\s*([<"])([^>"]+)[>"]/ or next;
        if ($path =~ m{(?:^|/)(?:ngx_|nginx\.h)}) {
            push @wrong, "$folder must not include nginx's <$path>" if $folder ne 'nginx';
        } elsif ($folder eq 'unit' && $path =~ /^\w+\.hpp$/) {
            next;    # what the tests share stands beside them
        } elsif ($open eq '"') {
            my ($target) = $path =~ m{^(\w+)/\w+\.hpp$};
            push(@wrong, "\"$path\" is not written as \"folder/file.hpp\""), next if !$target;
            push @wrong, "$folder must not include $path" if $target ne $folder && !grep { $_ eq $target } $may{$folder}->@*;
        }
    }
    return @wrong;
}

is_deeply [violations(@{$_->{sample}})], $_->{wrong}, $_->{name} for (
    {name => 'an arrow that is allowed', sample => ['state', "#include \"drivers/redis.hpp\"\n#include <string>\n"], wrong => []},
    {name => 'an arrow backwards is found', sample => ['domain', "  #  include \"state/table.hpp\"\n"],
        wrong => ['domain must not include state/table.hpp']},
    {name => 'gate and jobs do not know each other', sample => ['jobs', '#include "gate/rules.hpp"'],
        wrong => ['jobs must not include gate/rules.hpp']},
    {name => 'nginx headers are found', sample => ['gate', "#include <ngx_core.h>\n"], wrong => ["gate must not include nginx's <ngx_core.h>"]},
    {name => 'src/nginx may have them', sample => ['nginx', "#include <ngx_core.h>\n"], wrong => []},
    {name => 'nobody includes src/nginx', sample => ['cli', "#include \"nginx/ngx.hpp\"\n"], wrong => ['cli must not include nginx/ngx.hpp']},
    {name => 'nor src/cli', sample => ['nginx', "#include \"cli/command.hpp\"\n"], wrong => ['nginx must not include cli/command.hpp']},
    {name => 'what a comment says does not count', sample => ['domain', "// x\n/*\n#include \"state/table.hpp\"\n*/\n"], wrong => []},
    {name => 'relative includes are found', sample => ['domain', '#include "../state/table.hpp"'],
        wrong => ['"../state/table.hpp" is not written as "folder/file.hpp"']},
);

my @files = sources();
cmp_ok scalar(@files), '>', 0, 'there are sources';
my @wrong;
for my $file (@files) {
    my $folder = $file =~ m{^src/(\w+)/} ? $1 : $file =~ m{^t/unit/} ? 'unit' : 'module';
    push @wrong, map { "$file: $_" } violations($folder, slurp(root() . "/$file"));
}
is join("\n", @wrong), '', 'all includes follow the arrows';

done_testing;
