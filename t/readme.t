# What the first screen promises is true: the twelve lines of configuration pass nginx -t, the demo walks its way by itself, every
# directive of the module is in the README's table and no other, and the files it names exist. O4.
use v5.36;
use Billing::Nginx ();
use Billing::Process qw(new_directory root slurp);
use Billing::Test;

my $readme = slurp(root() . '/README.md');

subtest 'the configuration on the first screen' => sub {
    my ($conf) = $readme =~ /^```nginx\n(.*?)^```/ms;
    my $directory = new_directory();
    Billing::Nginx::write_file("$directory/dsn", "host=127.0.0.1 port=1 dbname=nowhere\n");
    my $catalog = root() . '/conf/catalog.json';
    $conf =~ s{^load_module .*$}{%%GLOBALS%%}m or fail 'it loads the module';
    $conf =~ s{file:/etc/nginx/billing\.dsn}{file:$directory/dsn} or fail 'it names the database';
    $conf =~ s{ catalog\.json}{ $catalog} or fail 'it names the catalog';
    $conf =~ s{listen 8080}{listen 127.0.0.1:%%PORT%%};
    $conf =~ s{http \{}{http \{ %%HTTP_GLOBALS%%};
    my $host = Billing::Nginx->new(start => 0, conf => $conf);
    my ($code, $output) = $host->test_config($conf);
    is $code, 0, 'passes nginx -t' or diag $output;
};

subtest 'the table of directives' => sub {
    my $module = slurp(root() . '/ngx_billing_module.cpp');
    my @directives = sort $module =~ /ngx_string\("(billing\w*)"\)/g;
    my @documented = sort map { /^\| `(billing\w*)/ ? $1 : () } split /\n/, $readme;
    is_deeply \@documented, \@directives, 'is the command table';
    my @variables = sort slurp(root() . '/src/nginx/variables.cpp') =~ /\{"(billing_\w+)"/g;
    ok $readme =~ /`\$\Q$_\E`/, "\$$_ is there" for @variables;
};

subtest 'files and folders' => sub {
    ok -e root() . "/$_", "$_ exists" for grep { !m{^build/} } $readme =~ m{`((?:src|conf|script|t|migrations)/[\w./-]*|[A-Z]+\.md)`}g;
};

subtest 'the demo' => sub {
    my $log = new_directory() . '/demo.log';
    my $demo = Billing::Process->start(name => 'script/demo', log => $log, command => [root() . '/script/demo', '--check']);
    is $demo->wait_exit(300), 0, 'script/demo --check exits with 0' or diag slurp($log);
    like slurp($log), qr/first request +200\nafter twenty requests +402\n/, 'and walks the way';
    like slurp($log), qr/paid +303\n.*\nthe same request after the upgrade +200\n.*\nand then it is the free one +403\n/s, 'to the end';
};
done_testing;
