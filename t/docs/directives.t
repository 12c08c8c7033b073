# The reference is the command table: each directive has its section with syntax, default, context and an example, in the contexts that
# the module allows, and each example passes nginx -t. O3.
use v5.36;
use Billing::Nginx ();
use Billing::Process qw(root slurp);
use Billing::Test;

my $reference = slurp(root() . '/docs/directives.md');
my $module = slurp(root() . '/ngx_billing_module.cpp');
my %contexts = (http => 'http', level => 'http, server, location', content => 'location');
my %allowed;
$allowed{$2} = $contexts{$1} while $module =~ /(http|level|content)_directive\(ngx_string\("(\w+)"\)/g;
my %section = $reference =~ /^### (\w+)\n(.*?)(?=^##|\z)/gms;
is_deeply [sort keys %section], [sort keys %allowed], 'each directive has a section, and nothing else has';

my $host = Billing::Nginx->new(start => 0, conf => <<'END', vars => {EXAMPLE => ''});
%%GLOBALS%%
events { }
http {
    %%HTTP_GLOBALS%%
%%EXAMPLE%%
}
END

my $catalog = root() . '/conf/catalog.json';
my %needed = (billing_zone => 'main 4m', billing_postgres => '"host=127.0.0.1 port=1 dbname=nowhere"', billing_catalog => $catalog);
for my $name (sort keys %section) {
    subtest $name => sub {
        my ($context) = $section{$name} =~ /^\| Context: \| (.+) \|$/m;
        is $context, $allowed{$name}, 'in the contexts that the module allows';
        like $section{$name}, qr/^\| Syntax: \| `\Q$name\E[ ;].*;?` \|$/m, 'its syntax';
        like $section{$name}, qr/^\| Default: \| \S.* \|$/m, 'its default';
        my ($example) = $section{$name} =~ /^```nginx\n(.*?)^```/ms;
        like $example, qr/\b\Q$name\E\b/, 'an example of it';
        $example =~ s/billing_catalog catalog\.json/billing_catalog $catalog/;
        my $text = join "\n", (map { "$_ $needed{$_};" } grep { $example !~ /\b$_\b/ } sort keys %needed), $example;
        my ($code, $output) = $host->test_config($host->{conf}, EXAMPLE => $text);
        is $code, 0, 'which passes nginx -t' or diag $output;
    };
}
done_testing;
